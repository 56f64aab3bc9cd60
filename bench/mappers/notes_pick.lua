-- Five fields of a note by pick, its title cut into words, three rows.
return {
    name = "notes_pick",
    on = "blob",
    tables = {
        notes = { columns = { "title text", "created int", "author text", "email text", "tags json",
            "size int" } },
        note_tags = { columns = { "tag text", "title text", "created int", "kind text" } },
        note_words = { columns = { "title text", "words json", "count int" } },
    },
    map = function(blob, emit)
        local kind, title, created, author, tags =
            blob:pick("type", "title", "created", "author", "tags")
        local words = {}
        for word in title:lower():gmatch("%w+") do
            words[#words + 1] = word
        end
        emit.notes { title = title, created = created, author = author.name, email = author.email,
            tags = tags, size = blob.size }
        emit.note_tags { tag = tags[1], title = title, created = created, kind = kind }
        emit.note_words { title = title, words = words, count = #words }
    end,
}
