-- record.lua - records of JSON and CSV as rows of key and value
--
-- What is a record: an object of a JSON array of objects, of JSON lines, or of an object whose
-- only member is such an array; a row of CSV under its header. A text that holds several becomes
-- items of their own: a JSON record its exact bytes, a CSV record the RFC 8785 JSON of
-- header -> cell strings. Any other JSON text (a single object, an array of anything else, a
-- scalar) is one record.
--
-- Each scalar of a record is a row. key is its JSON pointer (RFC 6901) without the leading slash:
-- "name", "author/name", "tags/0"; "" for a text that is a scalar. value is its text, null for
-- null; kind is string, number, boolean or null; number holds a number's value. Empty objects and
-- arrays have no scalars and so no rows.
--
-- One broken record of an array fails its whole file: the message says which line, and nothing of
-- the file is kept. Where a quote of CSV does not end, or is open 7 MiB behind the beginning of its
-- row, nobody knows the rows behind it: the rows before are kept, and the text from that row on is
-- an item of its own, named by its line ("line 7"), which fails. In the header, the file fails.
--
-- Of JSON lines a line that is no object is an item of its own, named by its number, which fails
-- alone or, when it is other JSON, is one record; an object above 8 MB fails alone. JSON lines are
-- a text whose first line is an object and not all, or whose media type says so; without one line
-- that is an object the file fails.
--
-- A text in UTF-16 becomes one item, the same in UTF-8. Halves of surrogate pairs alone become
-- U+FFFD there; then the item's name says how many.
--
-- A text above 2 MiB becomes pieces of about 1 MiB, items that hold whole records and no rows; the
-- records are the same.

local json, csv = refuge.json, refuge.csv

-- line: of a broken record.
local function line_name(line)
    return line and ("line %d"):format(line)
end

local function split(emit, records, media)
    local part = emit.part
    for offset, size, line in records do
        part { offset = offset, size = size, media = media, name = line_name(line) }
    end
end

local CSV_BROKEN = "application/vnd.refuge.csv-broken"

local function split_csv(emit, blob, delimiter)
    local part = emit.part
    for text, offset, size, line in csv.json(blob, { delimiter = delimiter, broken = true }) do
        if text then
            part { bytes = text, media = "application/json" }
        else
            part { offset = offset, size = size, media = CSV_BROKEN, name = line_name(line) }
        end
    end
end

-- A large text is cut into runs of whole records first, each an item that is split in turn: so what
-- one call puts out has a bound. Their media types are their own, for no other mapper's eyes.
local LARGE = 2 ^ 21
local JSON_PIECE = "application/vnd.refuge.json-piece"
local CSV_PIECE = "application/vnd.refuge.csv-piece"

local function cut_csv(emit, blob, delimiter)
    local pieces, head = csv.pieces(blob, { delimiter = delimiter, broken = true })
    for offset, size, line in pieces do
        if line then
            emit.part { offset = offset, size = size, media = CSV_BROKEN, name = line_name(line) }
        else
            emit.part { head = head, offset = offset, size = size, media = CSV_PIECE }
        end
    end
end

local function cut_json(emit, pieces)
    for offset, size, count, line in pieces do
        -- A piece of one record would be a part that equals its parent.
        local media = count > 1 and JSON_PIECE or "application/json"
        emit.part { offset = offset, size = size, media = media, name = line_name(line) }
    end
end

local function flatten(emit, blob)
    local row = emit.record
    json.flatten(blob, function(key, value, kind, number)
        row { key = key, value = value, kind = kind, number = number }
    end)
end

local function map_json(emit, blob)
    local options = { broken = true, lines = blob.media == "application/x-ndjson" }
    if blob.size > LARGE then
        local pieces = json.pieces(blob, nil, options)
        if pieces then
            return cut_json(emit, pieces)
        end
    else
        local records = json.records(blob, options)
        if records then
            return split(emit, records, "application/json")
        end
    end
    flatten(emit, blob)
end

local function is_utf16(blob)
    local mark = blob:sub(1, 2)
    return mark == "\255\254" or mark == "\254\255"
end

local function map_utf16(emit, blob)
    local text, replaced = refuge.unicode.decode(blob:content(), "utf-16", true)
    local name
    if replaced > 0 then
        name = ("%s (UTF-16, %d bad character%s)"):format(blob.name or "text", replaced,
                                                          replaced == 1 and "" or "s")
    end
    emit.part { bytes = text, media = blob.media, name = name }
end

local function map_csv(emit, blob, delimiter)
    if blob.size > LARGE then
        cut_csv(emit, blob, delimiter)
    else
        split_csv(emit, blob, delimiter)
    end
end

return {
    name = "record",
    version = "3",
    title = "Records of JSON and CSV files, one row per value",
    match = {
        media = {
            "application/json", "application/*+json", "application/x-ndjson",
            "text/csv", "text/tab-separated-values", JSON_PIECE, CSV_PIECE, CSV_BROKEN,
        },
    },
    splits = true,
    limits = { cpu_ms = 60000, parts = 1000000, rows = 100000, output_mb = 64 },
    tables = {
        record = {
            title = "Values of records",
            columns = { "key text facet", "value text search", "kind text", "number float" },
        },
    },

    map = function(blob, emit)
        local media = blob.media
        if media == CSV_PIECE then
            return split_csv(emit, blob)
        elseif media == CSV_BROKEN then
            error("a quote in this row does not end, so where rows end is not known from here on",
                  0)
        elseif media == JSON_PIECE then
            return split(emit, json.objects(blob), "application/json")
        elseif is_utf16(blob) then
            return map_utf16(emit, blob)
        elseif media == "text/csv" then
            return map_csv(emit, blob)
        elseif media == "text/tab-separated-values" then
            return map_csv(emit, blob, "\t")
        end
        return map_json(emit, blob)
    end,

    tests = {
        {
            name = "a single object is the record itself",
            blob = '{"name":"Ada","born":1815,"tags":["x"],"died":null,"ok":true,"at":{"a/b":1.5}}',
            rows = {
                record = {
                    { key = "name", value = "Ada", kind = "string" },
                    { key = "born", value = "1815", kind = "number", number = 1815 },
                    { key = "tags/0", value = "x", kind = "string" },
                    { key = "died", kind = "null" },
                    { key = "ok", value = "true", kind = "boolean" },
                    { key = "at/a~1b", value = "1.5", kind = "number", number = 1.5 },
                },
            },
            parts = 0,
        },
        { name = "an array of objects", blob = '[{"a":1}, {"a":2}]', parts = 2, rows = {} },
        { name = "an array in an object", blob = '{"rows":[{"a":1}]}', parts = 1, rows = {} },
        { name = "JSON lines", blob = '{"a":1}\n{"a":2}\n{"a":3}\n', parts = 3, rows = {} },
        {
            name = "an array of scalars",
            blob = "[1,\"x\"]",
            rows = {
                record = {
                    { key = "0", value = "1", kind = "number", number = 1 },
                    { key = "1", value = "x", kind = "string" },
                },
            },
        },
        {
            name = "rows of CSV",
            blob = "name;town;year\nAda;London;1815\n\"B; C\";Paris;1900\n",
            filename = "people.csv",
            parts = 2,
            rows = {},
        },
        {
            name = "a quote that does not end",
            blob = 'name,town\nAda,London\n"Grace,New York\nAlan,Wilmslow\n',
            filename = "people.csv",
            parts = 2,
            rows = {},
        },
        {
            name = "in the header",
            blob = 'name,"town\nAda,London\n',
            filename = "people.csv",
            error = "line 1",
        },
        { name = "a broken line", blob = '{"a":1}\n{"a":}\n{"a":2}', parts = 3, rows = {} },
        { name = "one line", blob = '{"a":}', filename = "a.json", error = "line 1" },
        {
            name = "a broken element",
            blob = '[{"a":1},\n{"a":}]',
            filename = "a.json",
            error = "line 2",
        },
        {
            name = "the first line is broken",
            blob = '{"a":}\nnot this\n{"a":1}\n',
            filename = "log.jsonl",
            parts = 3,
            rows = {},
        },
        {
            name = "all lines are broken",
            blob = '{"a":}\n{"b\n',
            filename = "log.jsonl",
            error = "line 1",
        },
    },
}
