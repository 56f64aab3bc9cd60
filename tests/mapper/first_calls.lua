-- first_calls.lua - each helper once, with arguments that it takes
--
-- A helper that is not here fails the test: what a library opens or asks the system for at its
-- first call must happen before the jail closes, and this is where that is seen.

local r = refuge
local calls = {
    ["csv.json"] = { "a,b\n1,2\n" },
    ["csv.pieces"] = { "a,b\n1,2\n" },
    ["csv.records"] = { "a,b\n1,\226\n" },
    ["csv.rows"] = { "a,b\n1,2\n" },
    ["hash.base64"] = { "x" },
    ["hash.blobref"] = { "x" },
    ["hash.crc32"] = { "x" },
    ["hash.hex"] = { "x" },
    ["hash.sha256"] = { "x" },
    ["hash.unbase64"] = { "eA==" },
    ["hash.unhex"] = { "78" },
    ["json.decode"] = { '{"a":[1,2.5,"x",12345678901234567,null,true]}' },
    ["json.encode"] = { { a = 1.25, b = { "x" } } },
    ["json.flatten"] = { '{"a":1}', function() end },
    ["json.objects"] = { '{"a":1},{"a":2}' },
    ["json.pick"] = { '{"a":1}', "a" },
    ["json.pieces"] = { '[{"a":1}]' },
    ["json.records"] = { '[{"a":1}]' },
    ["text.collapse"] = { "a  b" },
    ["text.ends"] = { "ab", "b" },
    ["text.lines"] = { "a\nb" },
    ["text.snippet"] = { "a b c", 3 },
    ["text.split"] = { "a,b", "," },
    ["text.starts"] = { "ab", "a" },
    ["text.trim"] = { " x " },
    ["text.truncate"] = { "abc", 2 },
    ["text.words"] = { "a b" },
    ["time.date"] = { { year = 2024, month = 1, day = 1 } },
    ["time.epoch"] = { 1700000000.5 },
    ["time.format"] = { r.time.epoch(0), "%Y %a %b %z" },
    ["time.parse"] = { "Mon, 02 Jan 2006 15:04:05 -0700" },
    ["unicode.char"] = { 233 },
    ["unicode.clean"] = { "\195" },
    ["unicode.codepoints"] = { "\195\169" },
    ["unicode.decode"] = { "x", "latin1" },
    ["unicode.fold"] = { "\195\137" },
    ["unicode.len"] = { "\195\169" },
    ["unicode.lower"] = { "\195\137" },
    ["unicode.nfc"] = { "e\204\129" },
    ["unicode.nfd"] = { "\195\169" },
    ["unicode.nfkc"] = { "\239\172\129" },
    ["unicode.nfkd"] = { "\239\172\129" },
    ["unicode.strip"] = { "\195\169" },
    ["unicode.sub"] = { "\195\169", 1, 1 },
    ["unicode.upper"] = { "\195\169" },
    ["unicode.valid"] = { "\195\169" },
    ["unicode.width"] = { "\195\169" },
    ["uri.decode"] = { "a%20b" },
    ["uri.encode"] = { "a b" },
    ["uri.parse"] = { "http://a/b?c=d#e" },
    ["uri.query"] = { "a=b" },
}

local function call_all(say)
    for room_name, room in pairs(r) do
        if type(room) == "userdata" and room ~= r.null then
            for name, helper in pairs(room) do
                local full = room_name .. "." .. name
                if type(helper) == "function" then
                    local arguments = calls[full] or error("first_calls.lua does not call " .. full)
                    local answer = helper(unpack(arguments))
                    if type(answer) == "function" then -- an iterator: its first step too
                        answer = answer()
                    end
                    say(full, tostring(answer))
                end
            end
        end
    end
end

return {
    name = "first_calls",
    splits = true,
    tables = { calls = { columns = { "helper text", "answer text", "at time", "part float" } } },
    map = function(blob, emit)
        call_all(function(helper, answer)
            emit.calls { helper = helper, answer = answer, at = r.time.epoch(0) }
        end)
        for line in blob:lines() do
            emit.calls { helper = "blob:lines", answer = line, part = math.sin(1) + 2 ^ 0.5 }
        end
        emit.calls { helper = "blob:sub", answer = blob:sub(1, 1) }
        emit.calls { helper = "blob:pick", answer = blob:pick("a") }
        emit.calls { helper = "blob:json", answer = refuge.json.encode(blob:json()) }
        emit.calls { helper = "format", answer = ("%5.3f %g %d %s"):format(1.5, 2.5, 3, "x") }
        emit.part { bytes = "part", media = "text/plain", name = "n" }
    end,
}
