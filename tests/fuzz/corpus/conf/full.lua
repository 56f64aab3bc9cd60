-- comment
return { one = { text = "a\tb\65\x42\u{20ac}", choice = 'b', int = 0x7, size = "64k", wait = '2s', flag = true, list = { "x", [[y]] } },
 --[==[ long ]] ]==]
 many = { ["a-b"] = { int = -1.5e3; list = 'z' }, c = {} }, }
