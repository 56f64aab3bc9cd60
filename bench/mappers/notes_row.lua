-- One row of a small note.
return {
    name = "notes_row",
    on = "blob",
    tables = {
        notes = { columns = { "title text", "created int", "author text", "email text" } },
    },
    map = function(blob, emit)
        local title, created, author = blob:pick("title", "created", "author")
        emit.notes { title = title, created = created, author = author.name, email = author.email }
    end,
}
