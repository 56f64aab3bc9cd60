-- Five fields of a note that is decoded whole, its title cut into words, three rows.
return {
    name = "notes_decode",
    on = "blob",
    tables = {
        notes = { columns = { "title text", "created int", "author text", "email text", "tags json",
            "size int" } },
        note_tags = { columns = { "tag text", "title text", "created int", "kind text" } },
        note_words = { columns = { "title text", "words json", "count int" } },
    },
    map = function(blob, emit)
        local note = blob:json()
        local title, created, author, tags = note.title, note.created, note.author, note.tags
        local words = {}
        for word in title:lower():gmatch("%w+") do
            words[#words + 1] = word
        end
        emit.notes { title = title, created = created, author = author.name, email = author.email,
            tags = tags, size = blob.size }
        emit.note_tags { tag = tags[1], title = title, created = created, kind = note.type }
        emit.note_words { title = title, words = words, count = #words }
    end,
}
