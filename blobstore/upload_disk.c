/*
 * upload_disk.c - committing a large payload
 *
 * Its file carries the number of its life, which must be known before the file gets its name and
 * its record is written. So one upload at a time commits a ref; another waits and then finds the
 * blob there. A delete meanwhile changes nothing: the blob is absent until the record is in.
 */
#include <stdlib.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"
#include "core/control.h"

struct rf_claim {
    struct rf_blobref ref;
    struct rf_claim *next;
};

struct disk_large {
    struct rf_large base;
    struct rf_disk *disk;
    struct rf_large_writer *writer;
};

enum rf_status rf_disk_large_open(struct rf_large **out, struct rf_store *base,
                                  struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct disk_large *large = calloc(1, sizeof *large);
    enum rf_status status;

    if (!large)
        return rf_error_set(err, RF_NOMEM, "no memory for an upload");
    large->base.ops = base->ops;
    large->disk = disk;
    status = rf_large_create(&large->writer, disk->dir, err);
    if (status != RF_OK)
        free(large);
    else
        *out = &large->base;
    return status;
}

enum rf_status rf_disk_large_write(struct rf_large *base, struct rf_bytes bytes,
                                   struct rf_error *err)
{
    return rf_large_write(((struct disk_large *)base)->writer, bytes, err);
}

enum rf_status rf_disk_large_clone(struct rf_large *base, int fd, uint64_t offset, uint64_t size,
                                   uint64_t *taken, struct rf_error *err)
{
    return rf_large_clone(((struct disk_large *)base)->writer, fd, offset, size, taken, err);
}

bool rf_disk_is_claimed(const struct rf_disk *disk, const struct rf_blobref *ref)
{
    for (const struct rf_claim *claim = disk->claims; claim; claim = claim->next) {
        if (rf_blobref_equal(&claim->ref, ref))
            return true;
    }
    return false;
}

static void claim_ref(struct rf_disk *disk, struct rf_claim *claim)
{
    pthread_mutex_lock(&disk->claim_lock);
    while (rf_disk_is_claimed(disk, &claim->ref))
        pthread_cond_wait(&disk->claim_free, &disk->claim_lock);
    claim->next = disk->claims;
    disk->claims = claim;
    pthread_mutex_unlock(&disk->claim_lock);
}

static void release_ref(struct rf_disk *disk, struct rf_claim *claim)
{
    struct rf_claim **at = &disk->claims;

    pthread_mutex_lock(&disk->claim_lock);
    while (*at != claim)
        at = &(*at)->next;
    *at = claim->next;
    pthread_cond_broadcast(&disk->claim_free);
    pthread_mutex_unlock(&disk->claim_lock);
}

/* Append the record of a payload that is durable in its file, or of nothing but a lift. */
static enum rf_status append_record(struct rf_disk *disk, struct rf_act *act, uint32_t life,
                                    struct rf_error *err)
{
    act->done = rf_act_settle;
    act->own.large = true;
    act->own.large_life = life;
    rf_committer_submit(disk->committer, act);
    rf_act_await(act);
    return act->status == RF_OK ? RF_OK : rf_error_set(err, act->status, "%s", act->error.message);
}

/* The life that this upload's file begins; 0: none, as a copy is there that can be read. */
static enum rf_status next_life(struct rf_disk *disk, const struct rf_entry *was, uint32_t *life,
                                struct rf_error *err)
{
    struct rf_error cause = {0};
    enum rf_status status = RF_OK;

    if (was->life % 2 == 0) {
        *life = was->life + 1;
        return RF_OK;
    }
    *life = 0;
    if (RF_SAFEGUARD("put-checks-copy"))
        status = rf_large_verify(disk->dir, &was->ref, was->life, was->size, &cause);
    if (status == RF_NOT_FOUND || status == RF_CORRUPT)
        *life = was->life + 2; /* a delete and a put */
    else if (status != RF_OK)
        return rf_error_set(err, status, "%s", cause.message);
    return RF_OK;
}

/* With the ref claimed: what is missing of {file, record}. *act, with ref, part and size, is
 * answered. */
static enum rf_status commit_claimed(struct disk_large *large, struct rf_act *act,
                                     struct rf_error *err)
{
    const struct rf_act asked = *act;
    struct rf_disk *disk = large->disk;
    enum rf_status status;
    uint32_t life = 0;

    do { /* again only when it was there, and deleted before its turn came */
        struct rf_error cause = {0};
        struct rf_entry was = {0};
        *act = asked;
        status = rf_lookup_find(&disk->lookup, &act->ref, &was, NULL, &cause);
        if (status != RF_OK && status != RF_NOT_FOUND)
            return rf_error_set(err, status, "%s", cause.message);
        rf_error_clear(&cause);
        status = next_life(disk, &was, &life, &cause);
        if (status == RF_OK && life > 0)
            status = rf_large_publish(large->writer, life, &cause);
        if (status == RF_OK)
            status = append_record(disk, act, life, &cause);
        if (status != RF_OK && (status != RF_UNAVAILABLE || life > 0))
            return rf_error_set(err, status, "%s", cause.message);
    } while (status != RF_OK);
    return RF_OK;
}

enum rf_status rf_disk_large_commit(struct rf_large *base, const struct rf_blobref *expect,
                                    bool part, struct rf_blobref *out,
                                    enum rf_put_outcome *outcome, uint64_t *seq,
                                    struct rf_error *err)
{
    struct disk_large *large = (struct disk_large *)base;
    char text[RF_BLOBREF_SIZE], expected[RF_BLOBREF_SIZE];
    struct rf_act act = {.part = part};
    struct rf_claim claim;
    enum rf_status status = rf_large_finish(large->writer, &claim.ref, &act.own.size, err);

    if (status != RF_OK)
        return status;
    if (expect && !rf_blobref_equal(expect, &claim.ref)) {
        rf_blobref_format(&claim.ref, text);
        rf_blobref_format(expect, expected);
        return rf_error_set(err, RF_INVALID, "content hashes to %s, not to %s", text, expected);
    }
    act.ref = claim.ref;
    claim_ref(large->disk, &claim);
    status = commit_claimed(large, &act, err);
    release_ref(large->disk, &claim);
    if (status != RF_OK)
        return status;
    if (out)
        *out = act.ref;
    if (outcome)
        *outcome = act.outcome;
    if (seq)
        *seq = act.seq;
    return RF_OK;
}

void rf_disk_large_close(struct rf_large *base)
{
    struct disk_large *large = (struct disk_large *)base;

    rf_large_free(large->writer);
    free(large);
}
