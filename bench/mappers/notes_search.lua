-- One row of a note, its title and body searchable.
return {
    name = "notes_search",
    on = "blob",
    tables = {
        notes = { columns = { "title text search", "created int", "author text", "email text",
            "body text search" } },
    },
    map = function(blob, emit)
        local title, created, author, body = blob:pick("title", "created", "author", "body")
        emit.notes { title = title, created = created, author = author.name, email = author.email,
            body = body }
    end,
}
