/*
 * fuzz_lua_json.c - decode, pick, flatten and records agree with each other and with core's scanner
 */
#include "core/json_scan.h"
#include "tests/fuzz/lua_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char script[] =
    "local json = refuge.json\n"
    "local function at(d, ...)\n"
    "  for _, k in ipairs { ... } do\n"
    "    if type(d) ~= 'table' then return nil end\n"
    "    d = d[k]\n"
    "  end\n"
    "  return d\n"
    "end\n"
    "local function same(a, b)\n"
    "  if a == nil or b == nil then assert(a == b, 'pick and decode differ') return end\n"
    "  local good, x = pcall(json.encode, a) local also, y = pcall(json.encode, b)\n"
    "  assert(good == also and (not good or x == y), 'pick and decode differ')\n"
    "end\n"
    "return { name = 'fuzz', limits = { memory_mb = 256, rows = 1000000 },\n"
    "  tables = { t = { columns = { 'v text' } }, r = { columns = { 'key text', 'value text',\n"
    "    'number float' } } },\n"
    "  map = function(blob, emit)\n"
    "    local good, d = pcall(blob.json, blob)\n"
    "    local picked, a, ab, b, one = pcall(blob.pick, blob, 'a', 'a.b', 'b', '/a/1')\n"
    "    local flat, why = pcall(json.flatten, blob, function(k, v, kind, n)\n"
    "      emit.r { key = k, value = v, number = n } end)\n"
    "    local deep = not good and d:find('deep') or not flat and why:find('deep')\n"
    "    if deep then return emit.t { v = 'deep' } end\n"
    "    assert(good == picked and good == flat, tostring(d) .. tostring(a) .. tostring(why))\n"
    "    emit.t { v = good and 'good' or 'bad' }\n"
    "    local any, all = pcall(json.records, blob, { broken = true, lines = true })\n"
    "    local last = 0\n"
    "    if any and all then for offset, size, line in all do\n"
    "      assert(offset >= last and size > 0 and offset + size <= blob.size, 'records overlap')\n"
    "      last = offset + size\n"
    "    end end\n"
    "    local splits, records, kind = pcall(json.records, blob)\n"
    "    assert(not (splits and records) or any and all, 'broken lines cost whole records')\n"
    "    if splits and records then\n"
    "      local n\n"
    "      splits, n = pcall(function()\n"
    "        local count = 0\n"
    "        for offset, size in records do\n"
    "          json.decode(blob:sub(offset + 1, offset + size)) count = count + 1\n"
    "        end\n"
    "        return count\n"
    "      end)\n"
    "      if kind == 'array' then\n"
    "        local list = good and (d[1] and d or d[next(d)])\n"
    "        assert(good and splits and n == #list, 'records of an array') end\n"
    "      if kind == 'lines' then assert(not good, 'lines are no JSON') end\n"
    "    end\n"
    "    if not good then return end\n"
    "    local is_list = type(d) == 'table' and getmetatable(d) == 'array'\n"
    "    if not is_list then\n"
    "      same(a, at(d, 'a')) same(b, at(d, 'b'))\n"
    "      local inner = at(d, 'a')\n"
    "      if type(inner) == 'table' and getmetatable(inner) == 'array' then\n"
    "        same(ab, nil) same(one, inner[2])\n"
    "      else same(ab, at(d, 'a', 'b')) same(one, at(d, 'a', '1')) end\n"
    "    end\n"
    "    local encoded, text = pcall(json.encode, d)\n"
    "    if encoded then assert(json.encode(json.decode(text)) == text, 'encode') end\n"
    "  end }\n";

static struct lua_fuzz fuzz;

/* What Lua holds is reached by packed pointers that the leak checker cannot follow. */
static void close_fuzz(void)
{
    lua_fuzz_close(&fuzz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_bytes text = rf_bytes(data, size), output;
    struct rf_error err = {0};
    bool good, found_good, deep;

    if (!fuzz.env) {
        lua_fuzz_open(&fuzz, script);
        atexit(close_fuzz);
    }
    output = lua_fuzz_map(&fuzz, text, false);
    found_good = memmem(output.data, output.size, "\5\4\0\0\0good", 9) != NULL;
    deep = memmem(output.data, output.size, "\5\4\0\0\0deep", 9) != NULL;
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
        text = rf_bytes(data + 3, size - 3);
    good = rf_json_check(text, &err) == RF_OK;
    if (!deep && memmem(output.data, output.size, "\5\3\0\0\0bad", 8) != NULL && good)
        abort();
    if (!deep && found_good && !good && memmem(data, size, "good", 4) == NULL)
        abort();
    lua_fuzz_map(&fuzz, rf_bytes(data, size), true);
    return 0;
}
