-- The mapper of the crash harnesses: rows, dead letters, needs and parts, told by the blob itself.
-- Each version emits one row more per plain item, so that versions never agree by chance.
local VERSION = 1

local map = {}

function map.plain(item, blob, emit)
    for n = 1, item.rows + VERSION do
        emit.history { key = item.id, kind = "plain", note = "plain number " .. n }
    end
end

function map.poison(item)
    error("poison " .. item.id)
end

function map.need(item, blob, emit)
    local other = blob:need(item.ref)
    emit.history { key = item.id, kind = "need", note = "needs " .. #other:content() .. " bytes" }
end

function map.split(item, blob, emit)
    for n = 1, #item.parts do
        emit.part { bytes = refuge.json.encode(item.parts[n]), media = "application/json",
                    name = "part " .. n }
    end
end

return {
    name = "history",
    version = VERSION,
    on = { "blob", "file" },
    match = { media = "application/json" },
    splits = true,
    tables = {
        history = {
            columns = { "key text facet", "kind text facet", "note text search" },
        },
    },
    map = function(blob, emit)
        local item = blob:json()
        local handler = map[item.kind]
        if handler then
            handler(item, blob, emit)
        else
            emit.history { key = blob.name, kind = "other", note = blob:sub(1, 200) }
        end
    end,
}
