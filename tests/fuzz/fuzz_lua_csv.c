/*
 * fuzz_lua_csv.c - the three forms of csv agree, and windows give what memory gives
 */
#include "tests/fuzz/lua_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char script[] =
    "local csv, json = refuge.csv, refuge.json\n"
    "return { name = 'fuzz', limits = { memory_mb = 256, rows = 1000000 },\n"
    "  tables = { t = { columns = { 'v text' } } },\n"
    "  map = function(blob, emit)\n"
    "    local good, why = pcall(function()\n"
    "      local rows = {}\n"
    "      for row, offset, size in csv.rows(blob) do\n"
    "        rows[#rows + 1] = row\n"
    "        emit.t { v = offset .. '+' .. size .. ' ' .. table.concat(row, '|') }\n"
    "      end\n"
    "      local n, names = 1, nil\n"
    "      for record in csv.records(blob) do\n"
    "        n = n + 1\n"
    "        local cells = 0\n"
    "        for _ in pairs(record) do cells = cells + 1 end\n"
    "        assert(cells == #rows[n], 'cells of a record')\n"
    "      end\n"
    "      assert(#rows == 0 or n == #rows, 'records')\n"
    "      n = 1\n"
    "      for text in csv.json(blob) do\n"
    "        n = n + 1\n"
    "        local record, cells = json.decode(text), 0\n"
    "        for _ in pairs(record) do cells = cells + 1 end\n"
    "        assert(cells == #rows[n], 'cells of json')\n"
    "        emit.t { v = text }\n"
    "      end\n"
    "      assert(#rows == 0 or n == #rows, 'json')\n"
    "    end)\n"
    "    local kept = 0\n"
    "    local begun, whole = pcall(csv.rows, blob, { broken = true })\n"
    "    for row, offset, size, line in begun and whole or function() end do\n"
    "      if row then kept = kept + 1 end\n"
    "      if not row then\n"
    "        emit.t { v = 'cut ' .. offset .. '+' .. size .. ' line ' .. line }\n"
    "        assert(not good and offset + size == blob.size, 'a cut')\n"
    "      end\n"
    "    end\n"
    "    emit.t { v = 'kept ' .. kept }\n"
    "    if not good then\n"
    "      assert(why:find('does not end') or why:find('UTF%-16') or why:find('more than 10000'),\n"
    "        why)\n"
    "      emit.t { v = why }\n"
    "    end\n"
    "  end }\n";

static struct lua_fuzz fuzz;

/* What Lua holds is reached by packed pointers that the leak checker cannot follow. */
static void close_fuzz(void)
{
    lua_fuzz_close(&fuzz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_bytes output, again;
    uint8_t *first;

    if (!fuzz.env) {
        lua_fuzz_open(&fuzz, script);
        atexit(close_fuzz);
    }
    output = lua_fuzz_map(&fuzz, rf_bytes(data, size), false);
    first = malloc(output.size + 1);
    if (!first)
        return 0;
    if (output.size)
        memcpy(first, output.data, output.size);
    output.data = first;
    again = lua_fuzz_map(&fuzz, rf_bytes(data, size), true);
    if (!rf_bytes_equal(output, again))
        abort();
    free(first);
    return 0;
}
