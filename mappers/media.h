/*
 * media.h - the media type of some bytes, as mappers and policies see it
 */
#ifndef RF_MAPPERS_MEDIA_H
#define RF_MAPPERS_MEDIA_H

#include "core/bytes.h"

#define RF_MEDIA_LOOK 4096 /* bytes at the beginning of a content that are looked at */

/* The media type found for an item, as blob.media would answer; a constant. name may be NULL. */
const char *rf_media_find(struct rf_bytes head, const char *name);

#endif
