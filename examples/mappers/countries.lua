-- countries.lua - ISO 3166-1 country records into a table of their own
--
-- The iso-codes package keeps them as {"3166-1":[{"alpha_2":"AW","alpha_3":"ABW",...},...]}. The
-- bundled mapper `record` makes an item of each element; this one takes those that are countries.

return {
    name = "countries",
    version = "1",
    title = "Countries of ISO 3166-1",
    match = { media = { "application/json" } },
    tables = {
        countries = {
            title = "Countries",
            columns = {
                "code text facet",
                "alpha_3 text",
                "number int",
                { "name", "text", search = true, title = "Short name" },
                { "official_name", "text", search = true, title = "Official name" },
                "flag text",
            },
            indexes = { "code", "alpha_3" },
        },
    },

    map = function(blob, emit)
        if blob.size > 65536 then
            return -- a whole file; its records come as items of their own
        end
        local code, alpha_3, number, name, official, common, flag, former = blob:pick(
            "alpha_2", "alpha_3", "numeric", "name", "official_name", "common_name", "flag",
            "alpha_4")
        if not (code and alpha_3 and number and name) or former then
            return -- another kind of record
        end
        emit.countries {
            code = code, alpha_3 = alpha_3, number = number,
            name = common or name, official_name = official or name, flag = flag,
        }
    end,

    tests = {
        {
            name = "a country",
            blob = '{"alpha_2":"AL","alpha_3":"ALB","flag":"🇦🇱","name":"Albania","numeric":"008",'
                .. '"official_name":"Republic of Albania"}',
            rows = {
                countries = {
                    {
                        code = "AL", alpha_3 = "ALB", number = 8, name = "Albania",
                        official_name = "Republic of Albania", flag = "🇦🇱",
                    },
                },
            },
        },
        {
            name = "a country with a common name",
            blob = '{"alpha_2":"BO","alpha_3":"BOL","common_name":"Bolivia","name":"Bolivia, '
                .. 'Plurinational State of","numeric":"068"}',
            rows = {
                countries = {
                    {
                        code = "BO", alpha_3 = "BOL", number = 68, name = "Bolivia",
                        official_name = "Bolivia, Plurinational State of",
                    },
                },
            },
        },
        {
            name = "a language",
            blob = '{"alpha_2":"sq","alpha_3":"sqi","name":"Albanian"}',
            rows = {},
        },
        {
            name = "a former country",
            blob = '{"alpha_2":"YU","alpha_3":"YUG","alpha_4":"YUCS","name":"Yugoslavia",'
                .. '"numeric":"891"}',
            rows = {},
        },
    },
}
