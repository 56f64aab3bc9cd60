-- The row that bench_sink writes, from JSON: nothing searchable.
return {
    name = "texts_plain",
    on = "blob",
    tables = { texts = { columns = { "key text", "val text", "at int" } } },
    map = function(blob, emit)
        local key, val, at = blob:pick("key", "val", "at")
        emit.texts { key = key, val = val, at = at }
    end,
}
