/*
 * blobref.h - the name of a blob: hash algorithm and content hash
 *
 * Text form: "sha256-" and 64 lower-case hex digits. The algorithm is part of the name; others may
 * follow. SHA-256 as in FIPS 180-4, computed by OpenSSL.
 */
#ifndef RF_CORE_BLOBREF_H
#define RF_CORE_BLOBREF_H

#include "core/bytes.h"
#include "core/error.h"

#define RF_ALGO_SHA256 1
#define RF_DIGEST_SIZE 32
#define RF_BLOBREF_SIZE 72 /* bytes of the text form, its NUL included */

struct rf_blobref {
    uint8_t algo; /* RF_ALGO_SHA256; 0: no ref */
    uint8_t digest[RF_DIGEST_SIZE];
};

/* Read the text form of exactly size bytes. RF_INVALID: err says what is wrong with it. */
RF_MUST_USE enum rf_status rf_blobref_parse(struct rf_blobref *out, const char *text, size_t size,
                                            struct rf_error *err);

/* Write the text form with its NUL. */
void rf_blobref_format(const struct rf_blobref *ref, char out[RF_BLOBREF_SIZE]);

bool rf_blobref_equal(const struct rf_blobref *a, const struct rf_blobref *b);

/* Order of the text forms: algorithm, then digest. Negative, 0 or positive. */
int rf_blobref_compare(const struct rf_blobref *a, const struct rf_blobref *b);

/* The ref of these bytes. Any thread (each keeps an OpenSSL context of its own). */
void rf_blobref_of(struct rf_blobref *out, struct rf_bytes bytes);

/* A running hash. One thread at a time. */
struct rf_hasher;
RF_MUST_USE struct rf_hasher *rf_hasher_new(void); /* never NULL */
void rf_hasher_free(struct rf_hasher *hasher);
void rf_hasher_update(struct rf_hasher *hasher, const void *data, size_t size);
/* The ref of what was fed, and ready for the next stream. */
void rf_hasher_finish(struct rf_hasher *hasher, struct rf_blobref *out);

#endif
