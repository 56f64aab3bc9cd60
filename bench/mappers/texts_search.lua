-- The row that bench_sink writes, from JSON: the text searchable.
return {
    name = "texts_search",
    on = "blob",
    tables = { texts = { columns = { "key text", "val text search", "at int" } } },
    map = function(blob, emit)
        local key, val, at = blob:pick("key", "val", "at")
        emit.texts { key = key, val = val, at = at }
    end,
}
