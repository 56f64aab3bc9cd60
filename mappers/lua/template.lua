-- template.lua - a mapper: a function from a blob to rows of tables
--
-- Try it:   refuge mapper check template.lua
--           refuge mapper test template.lua
--           refuge mapper run template.lua FILE --trace
-- Manual:   refuge-mapper(7)

return {
    name = "template",
    version = "1",
    title = "Notes written as JSON objects",

    -- Which blobs: by media type and file name, or a function(blob) that answers true.
    match = { media = { "application/json" }, name = { "*.json" } },

    -- Tables and their columns, in order: name, type (int float bool text json time blobref), and
    -- maybe search (full-text) or facet (indexed, to filter by).
    tables = {
        template_note = {
            title = "Notes",
            columns = { "title text search", "author text facet", "created time", "stars int" },
        },
    },

    map = function(blob, emit)
        local title, author, created, stars = blob:pick("title", "author.name", "created", "stars")
        if not title then
            return
        end
        emit.template_note { title = title, author = author, created = created, stars = stars }
    end,

    tests = {
        {
            name = "a note",
            blob = {
                title = "Hello", author = { name = "Ann" },
                created = "2024-05-06T07:08:09Z", stars = 5,
            },
            rows = {
                template_note = {
                    {
                        title = "Hello", author = "Ann",
                        created = "2024-05-06T07:08:09Z", stars = 5,
                    },
                },
            },
        },
        { name = "something else", blob = '{"name":"no note"}', rows = {} },
    },
}
