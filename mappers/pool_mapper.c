/*
 * pool_mapper.c - the texts of mappers, what they declare, and their identity
 *
 * The supervisor reads and hashes texts but never runs them: a fresh jailed worker runs the chunk,
 * asks for what it requires, and hands back the declaration, which is checked here.
 *
 * Identity = SHA-256 over: "refuge-mapper 1\n", u32 API version, text(main file's name), u32 number
 * of files, per file sorted by name: text(name), text(content); text(declaration); where text(x)
 * is u64 size and the bytes. Numbers little-endian.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "core/utf8.h"
#include "mappers/pool_bundled.h"
#include "mappers/pool_internal.h"

#define BUNDLED "bundled:"
#define LUA ".lua"
#define TEXTS_MAX ((size_t)RF_FILES_MAX * (RF_FILE_SIZE_MAX + 4096))
#define TASK_TRIES 3 /* when a worker dies through no fault of the mapper */

const struct rf_decl *rf_mapper_decl(const struct rf_mapper *mapper)
{
    return mapper->decl;
}

const char *rf_mapper_identity(const struct rf_mapper *mapper)
{
    return mapper->identity;
}

struct rf_bytes rf_mapper_bundle(const struct rf_mapper *mapper)
{
    return mapper->bundle;
}

const char *rf_pool_bundled(size_t index)
{
    for (size_t i = 0; i <= index; i++)
        if (!rf_bundled_mappers[i].name)
            return NULL;
    return rf_bundled_mappers[index].name;
}

static struct rf_mapper *new_mapper(const struct rf_pool *pool)
{
    struct rf_mapper *mapper = calloc(1, sizeof *mapper);

    if (!mapper)
        return NULL;
    mapper->folder = -1;
    mapper->id = pool->mapper_count;
    rf_arena_init(&mapper->arena, 3 * TEXTS_MAX);
    return mapper;
}

void rf_mapper_free(struct rf_mapper *mapper)
{
    if (!mapper)
        return;
    if (mapper->folder >= 0)
        close(mapper->folder);
    rf_arena_release(&mapper->arena);
    free(mapper);
}

/* ---- texts ---- */

static enum rf_status add_text(struct rf_mapper *mapper, const char *name, struct rf_bytes text,
                               struct rf_error *err)
{
    struct rf_text *to = &mapper->files[mapper->file_count];
    const char *copy;

    if (mapper->file_count == RF_FILES_MAX)
        return rf_error_set(err, RF_LIMIT, "'%s' would be file %d of the mapper: the most is %d",
                            name, RF_FILES_MAX + 1, RF_FILES_MAX);
    if (text.size > RF_FILE_SIZE_MAX)
        return rf_error_set(err, RF_LIMIT, "'%s' is larger than %u bytes", name,
                            RF_FILE_SIZE_MAX);
    if (rf_utf8_valid(text) != text.size)
        return rf_error_set(err, RF_INVALID, "'%s' is not UTF-8 text (at byte %zu)", name,
                            rf_utf8_valid(text));
    to->name = rf_arena_copy(&mapper->arena, name, strlen(name));
    copy = rf_arena_copy(&mapper->arena, text.data, text.size);
    if (!to->name || !copy)
        return rf_error_set(err, RF_NOMEM, "no memory for '%s'", name);
    to->text = rf_bytes(copy, text.size);
    mapper->file_count++;
    return RF_OK;
}

/* Read a regular file of at most RF_FILE_SIZE_MAX bytes. */
static enum rf_status read_file(int fd, const char *name, uint8_t **out, size_t *out_size,
                                struct rf_error *err)
{
    struct stat st;
    uint8_t *text = NULL;
    size_t size = 0;
    enum rf_status status = RF_OK;

    if (fstat(fd, &st) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot read mapper '%s'", name);
    if (!S_ISREG(st.st_mode))
        return rf_error_set(err, RF_INVALID, "cannot read mapper '%s': not a file", name);
    text = malloc(RF_FILE_SIZE_MAX + 1);
    if (!text)
        return rf_error_set(err, RF_NOMEM, "no memory for '%s'", name);
    while (size <= RF_FILE_SIZE_MAX) {
        ssize_t got = read(fd, text + size, RF_FILE_SIZE_MAX + 1 - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot read mapper '%s'", name);
        if (got <= 0)
            break;
        size += (size_t)got;
    }
    if (status) {
        free(text);
        return status;
    }
    *out = text;
    *out_size = size;
    return RF_OK;
}

static enum rf_status add_file(struct rf_mapper *mapper, int fd, const char *name,
                               struct rf_error *err)
{
    uint8_t *text = NULL;
    size_t size = 0;
    enum rf_status status = read_file(fd, name, &text, &size, err);

    if (status == RF_OK)
        status = add_text(mapper, name, rf_bytes(text, size), err);
    free(text);
    return status;
}

static const struct rf_bundled *find_bundled(const char *name)
{
    for (const struct rf_bundled *b = rf_bundled_mappers; b->name; b++)
        if (strcmp(b->name, name) == 0)
            return b;
    return NULL;
}

/* A module while its mapper is being loaded: of its folder, or else a bundled mapper, which another
 * one may so build on. A link is not followed: a mapper may be somebody else's work, and names in
 * its folder are all it can ask for. */
static enum rf_status read_module(struct rf_mapper *mapper, const char *name, const char *file)
{
    const struct rf_bundled *bundled = find_bundled(name);
    enum rf_status status = RF_NOT_FOUND;
    int fd = -1;

    if (mapper->folder < 0 && !mapper->bundled)
        return RF_NOT_FOUND;
    if (mapper->folder >= 0)
        fd = openat(mapper->folder, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        status = add_file(mapper, fd, file, NULL);
        close(fd);
    } else if (bundled && (mapper->folder < 0 || errno == ENOENT)) {
        status = add_text(mapper, file, rf_bytes(bundled->text, bundled->size), NULL);
    }
    return status;
}

enum rf_status rf_mapper_file(struct rf_mapper *mapper, const char *name,
                              const struct rf_text **out)
{
    char file[RF_FILE_NAME_MAX + sizeof LUA];
    enum rf_status status;

    *out = &mapper->files[0];
    if (name[0] == '\0')
        return RF_OK;
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0' ||
        strlen(name) + sizeof LUA > RF_FILE_NAME_MAX)
        return RF_NOT_FOUND;
    snprintf(file, sizeof file, "%s%s", name, LUA);
    for (size_t i = 0; i < mapper->file_count; i++) {
        *out = &mapper->files[i];
        if (strcmp((*out)->name, file) == 0)
            return RF_OK;
    }
    status = read_module(mapper, name, file);
    if (status == RF_OK)
        *out = &mapper->files[mapper->file_count - 1];
    return status;
}

/* ---- identity and bundle ---- */

static int by_name(const void *a, const void *b)
{
    const struct rf_text *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static void sort_files(const struct rf_mapper *mapper, const struct rf_text *sorted[RF_FILES_MAX])
{
    for (size_t i = 0; i < mapper->file_count; i++)
        sorted[i] = &mapper->files[i];
    qsort(sorted, mapper->file_count, sizeof sorted[0], by_name);
}

static void hash_u32(struct rf_hasher *hasher, uint32_t value)
{
    uint8_t bytes[4];

    rf_put_u32(bytes, value);
    rf_hasher_update(hasher, bytes, sizeof bytes);
}

static void hash_text(struct rf_hasher *hasher, struct rf_bytes text)
{
    uint8_t bytes[8];

    rf_put_u64(bytes, text.size);
    rf_hasher_update(hasher, bytes, sizeof bytes);
    if (text.size)
        rf_hasher_update(hasher, text.data, text.size);
}

static void make_identity(struct rf_mapper *mapper)
{
    static const char magic[] = "refuge-mapper 1\n";
    const struct rf_text *sorted[RF_FILES_MAX];
    struct rf_hasher *hasher = rf_hasher_new();
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];

    sort_files(mapper, sorted);
    rf_hasher_update(hasher, magic, sizeof magic - 1);
    hash_u32(hasher, RF_API_VERSION);
    hash_text(hasher, rf_bytes_text(mapper->files[0].name));
    hash_u32(hasher, (uint32_t)mapper->file_count);
    for (size_t i = 0; i < mapper->file_count; i++) {
        hash_text(hasher, rf_bytes_text(sorted[i]->name));
        hash_text(hasher, sorted[i]->text);
    }
    hash_text(hasher, mapper->decl->json);
    rf_hasher_finish(hasher, &ref);
    rf_hasher_free(hasher);
    rf_blobref_format(&ref, text);
    memcpy(mapper->identity, strchr(text, '-') + 1, sizeof mapper->identity);
}

static enum rf_status make_bundle(struct rf_mapper *mapper, struct rf_error *err)
{
    const struct rf_text *sorted[RF_FILES_MAX];
    const char *main = mapper->files[0].name, *copy = NULL;
    struct rf_buf buf;

    rf_buf_init(&buf, 6 * TEXTS_MAX); /* a control byte becomes six */
    sort_files(mapper, sorted);
    rf_buf_put_text(&buf, "{\"files\":{");
    for (size_t i = 0; i < mapper->file_count; i++) {
        rf_buf_put_text(&buf, i ? "," : "");
        rf_json_put_string(&buf, rf_bytes_text(sorted[i]->name));
        rf_buf_put_text(&buf, ":");
        rf_json_put_string(&buf, sorted[i]->text);
    }
    rf_buf_put_text(&buf, "},\"name\":");
    rf_json_put_string(&buf, rf_bytes(main, strlen(main) - strlen(LUA)));
    rf_buf_put_text(&buf, "}");
    if (!buf.failed)
        copy = rf_arena_copy(&mapper->arena, buf.data, buf.size);
    mapper->bundle = rf_bytes(copy, copy ? buf.size : 0);
    rf_buf_release(&buf);
    return copy ? RF_OK : rf_error_set(err, RF_NOMEM, "no memory for the mapper's bundle");
}

/* ---- loading ---- */

static enum rf_status run_task(struct rf_pool *pool, struct rf_mapper *mapper, uint16_t op,
                               struct rf_arena *arena, struct rf_bytes *out, struct rf_error *err)
{
    struct rf_task task = {.status = RF_UNAVAILABLE};

    for (int i = 0; i < TASK_TRIES && task.status == RF_UNAVAILABLE; i++) {
        enum rf_status status;
        task = (struct rf_task){.mapper = mapper, .arena = arena};
        status = rf_pool_run_task(pool, &task, op, err);
        if (status)
            return status;
    }
    *out = task.output;
    if (task.status == RF_INVALID) /* the script's own words, which name file and line */
        return rf_error_set(err, RF_INVALID, "%s", task.words);
    return task.status ? rf_error_set(err, task.status, "mapper '%s': %s", mapper->files[0].name,
                                      task.words)
                       : RF_OK;
}

static struct rf_mapper *find_same(const struct rf_pool *pool, const struct rf_mapper *mapper)
{
    for (uint32_t i = 0; i < pool->mapper_count; i++)
        if (strcmp(pool->mappers[i]->identity, mapper->identity) == 0)
            return pool->mappers[i];
    return NULL;
}

/* Have a mapper whose main text is there declare itself, and add it to the pool. Takes it. */
static enum rf_status declare_take(struct rf_pool *pool, struct rf_mapper *mapper,
                                   struct rf_mapper **out, struct rf_error *err)
{
    struct rf_bytes json;
    struct rf_mapper *same;
    enum rf_status status = RF_OK;

    if (pool->mapper_count == RF_POOL_MAPPERS_MAX)
        status = rf_error_set(err, RF_LIMIT, "too many mappers are loaded: the most is %d",
                              RF_POOL_MAPPERS_MAX);
    if (status == RF_OK)
        status = run_task(pool, mapper, RF_REQUEST_DECLARE, &mapper->arena, &json, err);
    if (status == RF_OK) {
        status = rf_decl_parse(&mapper->decl, &mapper->arena, json, err);
        if (status)
            rf_error_context(err, status, "mapper '%s'", mapper->files[0].name);
        else
            mapper->slow = mapper->decl->slow;
    }
    if (status == RF_OK)
        status = make_bundle(mapper, err);
    if (mapper->folder >= 0)
        close(mapper->folder);
    mapper->folder = -1;
    mapper->bundled = false; /* from now on it has what it asked for, and nothing else */
    if (status) {
        rf_mapper_free(mapper);
        return status;
    }
    make_identity(mapper);
    same = find_same(pool, mapper);
    if (same) {
        rf_mapper_free(mapper);
        *out = same;
        return RF_OK;
    }
    pool->mappers[mapper->id] = mapper;
    atomic_store(&pool->mapper_count, mapper->id + 1);
    rf_pool_allow(pool, &mapper->decl->limits);
    *out = mapper;
    return RF_OK;
}

/* The name messages use: the file's, with .lua. */
static enum rf_status main_name(const char *path, char out[RF_FILE_NAME_MAX], struct rf_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t size = strlen(name);
    bool lua = size > strlen(LUA) && strcmp(name + size - strlen(LUA), LUA) == 0;
    int written = snprintf(out, RF_FILE_NAME_MAX, "%s%s", name, lua ? "" : LUA);

    if (size == 0 || written >= RF_FILE_NAME_MAX)
        return rf_error_set(err, RF_INVALID, "cannot load mapper '%s': its name has to have 1 to "
                            "%d bytes", path, RF_FILE_NAME_MAX - 5);
    if (rf_utf8_valid(rf_bytes_text(name)) != size)
        return rf_error_set(err, RF_INVALID, "cannot load mapper '%s': its name is not UTF-8",
                            path);
    return RF_OK;
}

/* The main text, and the folder that modules are looked up in. */
static enum rf_status open_files(struct rf_mapper *mapper, const char *path, struct rf_error *err)
{
    const char *slash = strrchr(path, '/');
    char name[RF_FILE_NAME_MAX], *folder = NULL;
    enum rf_status status = main_name(path, name, err);
    int fd = -1;

    if (status)
        return status;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return rf_error_errno(err, errno == ENOENT ? RF_NOT_FOUND : RF_IO, errno,
                              "cannot open mapper '%s'", path);
    folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (folder)
        mapper->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    status = add_file(mapper, fd, name, err);
    free(folder);
    close(fd);
    return status;
}

static enum rf_status open_bundled(struct rf_mapper *mapper, const char *name,
                                   struct rf_error *err)
{
    const struct rf_bundled *bundled = find_bundled(name);
    char file[RF_FILE_NAME_MAX];

    if (!bundled)
        return rf_error_set(err, RF_NOT_FOUND, "no bundled mapper is called '%s'", name);
    mapper->bundled = true;
    snprintf(file, sizeof file, "%s%s", bundled->name, LUA);
    return add_text(mapper, file, rf_bytes(bundled->text, bundled->size), err);
}

enum rf_status rf_pool_load(struct rf_pool *pool, const char *path, struct rf_mapper **out,
                            struct rf_error *err)
{
    struct rf_mapper *mapper = new_mapper(pool);
    enum rf_status status;

    if (!mapper)
        return rf_error_set(err, RF_NOMEM, "no memory for mapper '%s'", path);
    if (strncmp(path, BUNDLED, strlen(BUNDLED)) == 0)
        status = open_bundled(mapper, path + strlen(BUNDLED), err);
    else
        status = open_files(mapper, path, err);
    if (status) {
        rf_mapper_free(mapper);
        return status;
    }
    return declare_take(pool, mapper, out, err);
}

/* The texts of a bundle: the main one first. */
static enum rf_status open_bundle(struct rf_mapper *mapper, struct rf_bytes bundle,
                                  struct rf_arena *arena, struct rf_error *err)
{
    const struct rf_json *json, *files, *main_text = NULL;
    const char *name;
    char file[RF_FILE_NAME_MAX];
    enum rf_status status = rf_json_parse(&json, arena, bundle, err);

    if (status)
        return rf_error_context(err, status, "cannot read a mapper's bundle");
    name = rf_json_string(rf_json_find(json, "name"));
    files = rf_json_find(json, "files");
    if (name && strlen(name) + sizeof LUA <= RF_FILE_NAME_MAX && files &&
        files->type == RF_JSON_OBJECT) {
        snprintf(file, sizeof file, "%s%s", name, LUA);
        main_text = rf_json_find(files, file);
    }
    if (!main_text || main_text->type != RF_JSON_STRING)
        return rf_error_set(err, RF_INVALID, "cannot read a mapper's bundle: no main text");
    status = add_text(mapper, file, main_text->text, err);
    for (size_t i = 0; status == RF_OK && i < files->count; i++) {
        const struct rf_json *text = &files->items[i];
        if (text == main_text)
            continue;
        if (text->type != RF_JSON_STRING || strlen((const char *)text->key.data) != text->key.size)
            return rf_error_set(err, RF_INVALID, "cannot read a mapper's bundle: bad file");
        status = add_text(mapper, (const char *)text->key.data, text->text, err);
    }
    return status;
}

enum rf_status rf_pool_load_bundle(struct rf_pool *pool, struct rf_bytes bundle,
                                   struct rf_mapper **out, struct rf_error *err)
{
    struct rf_mapper *mapper = new_mapper(pool);
    struct rf_arena arena;
    enum rf_status status;

    if (!mapper)
        return rf_error_set(err, RF_NOMEM, "no memory for a mapper's bundle");
    rf_arena_init(&arena, 2 * TEXTS_MAX);
    status = open_bundle(mapper, bundle, &arena, err);
    rf_arena_release(&arena);
    if (status) {
        rf_mapper_free(mapper);
        return status;
    }
    return declare_take(pool, mapper, out, err);
}

enum rf_status rf_pool_describe(struct rf_pool *pool, const struct rf_mapper *mapper,
                                const char *verb, struct rf_arena *arena, struct rf_bytes *out,
                                struct rf_error *err)
{
    if (strcmp(verb, "tests") != 0)
        return rf_error_set(err, RF_UNSUPPORTED, "mappers know no verb '%s'", verb);
    return run_task(pool, pool->mappers[mapper->id], RF_REQUEST_TESTS, arena, out, err);
}
