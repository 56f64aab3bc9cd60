-- More memory than there is, in one step or in many.
--# rep 1e11
local s = string.rep('x', 1e11)
--# rep just below 2 GB
local s = string.rep('x', 2 ^ 31 - 100)
--# rep 1e9 again and again
while true do local s = string.rep('x', 1e9 - 20) end
--# rep negative
local s = string.rep('x', -2 ^ 63) row{word = 'clean'}
--# rep nan
local s = string.rep('x', 0 / 0) row{word = 'clean'}
--# rep infinity
local s = string.rep('x', 1 / 0)
--# rep with separator
local s = string.rep('x', 1e8, ('y'):rep(1000))
--# rep of rep
local s = 'x' for i = 1, 40 do s = s:rep(1000) end
--# string doubling
local s = 'x' while true do s = s .. s end
--# many strings
local t = {} for i = 1, 1e9 do t[i] = 'string number ' .. i end
--# table of tables
local t = {} while true do t[#t + 1] = {} end
--# nested tables
local t = {} while true do t = {t} end
--# hash growth
local t = {} for i = 1, 1e9 do t[i * 7919 + 0.5] = i end
--# array growth
local t = {} for i = 1, 1e9 do t[i] = i end
--# growth compiled
local t, n = {}, 0 while true do n = n + 1 t[n] = n end
--# string keys
local t = {} for i = 1, 1e9 do t['k' .. i] = true end
--# closures
local t = {} while true do local x = {} t[#t + 1] = function() return x, t end end
--# coroutines that stay
local t = {} while true do t[#t + 1] = coroutine.create(function() coroutine.yield() end)
coroutine.resume(t[#t]) end
--# concat with a long separator
local t = {} for i = 1, 1e5 do t[i] = 'y' end local s = table.concat(t, ('z'):rep(1e5))
--# concat of long pieces
local t, p = {}, ('p'):rep(1e6) for i = 1, 1e4 do t[i] = p end local s = table.concat(t)
--# many operands
local p = ('p'):rep(1e6) local s = p .. p .. p .. p .. p .. p .. p .. p .. p .. p .. p .. p .. p
.. p .. p .. p
--# format width
local s = string.format('%99999999d', 1)
--# format precision
local s = string.format('%.99999999f', 1)
--# format of a giant
local s = string.format('%s%s%s%s', ('x'):rep(4e6), ('x'):rep(4e6), ('x'):rep(4e6), ('x'):rep(4e6))
--# format quoted
local s = string.format('%q', ('\0'):rep(4e6))
--# upper and lower of a giant
local s = ('x'):rep(6e6) local t = {} for i = 1, 10 do t[i] = s:upper() .. i end
--# reverse of a giant
local s = ('xy'):rep(3e6) local t = {} for i = 1, 10 do t[i] = s:reverse() .. i end
--# byte of a whole giant
local a = {('x'):rep(1e6):byte(1, -1)}
--# char of many
local t = {} for i = 1, 7000 do t[i] = 65 end local s = string.char((unpack or table.unpack)(t))
while true do t[#t + 1] = s .. #t end
--# unpack a giant
return (unpack or table.unpack)({}, 1, 1e8)
--# unpack with far ends
return (unpack or table.unpack)({}, -2 ^ 31, 2 ^ 31)
--# select far away
return select(-1e9, 1)
--# varargs
local function f(...) return f(1, ...) end f()
--# deep recursion
local function f(n) return 1 + f(n + 1) end f(1)
--# deep recursion through pcall
local function f() return pcall(f) end f()
--# deep recursion through a metamethod
local t = setmetatable({}, {}) getmetatable(t).__index = function(s, k) return s[k .. 'x'] end
local x = t.a
--# deep recursion through tostring
local t = setmetatable({}, {}) getmetatable(t).__tostring = function(s) return tostring(s) end
tostring(t)
--# deep recursion through concat
local t = setmetatable({}, {}) getmetatable(t).__concat = function(a, b) return a .. b end local
x = t .. t
--# deep recursion through sort
local function c(a, b) table.sort({2, 1}, c) return a < b end table.sort({3, 2, 1}, c)
--# deep recursion through gsub
local function f() return (('x'):gsub('x', f)) end f()
--# parse deep parentheses
assert((loadstring or load)('return ' .. ('('):rep(1e5)))
--# parse deep tables
assert((loadstring or load)('return ' .. ('{'):rep(1e5)))
--# parse many locals
local s = {} for i = 1, 1e5 do s[i] = 'local a' .. i .. '=1' end assert((loadstring or
load)(table.concat(s, ' ')))
--# parse a large text
local s = ('x=1 '):rep(1e6) while true do assert((loadstring or load)(s)) end
--# table.insert at the front
local t = {} while true do table.insert(t, 1, ('x'):rep(1000) .. #t) end
--# table.insert far away
local t = {} for i = 1, 60 do pcall(table.insert, t, 2 ^ i, 1) t[2 ^ i] = 1 end row{word = 'clean'}
--# json deep
local s = ('['):rep(1e6) refuge.json.decode(s)
--# json deep, closed
refuge.json.decode(('['):rep(2e5) .. (']'):rep(2e5))
--# json objects deep
refuge.json.decode(('{"a":'):rep(2e5) .. '1' .. ('}'):rep(2e5))
--# json wide
local s = '[' .. ('1,'):rep(3e6) .. '1]' refuge.json.decode(s)
--# json many keys
local t = {} for i = 1, 3e5 do t[i] = '"k' .. i .. '":1' end refuge.json.decode('{' ..
table.concat(t, ',') .. '}')
--# json encode of a ring
local t = {} t.t = t refuge.json.encode(t)
--# json encode deep
local t = {} local u = t for i = 1, 1e5 do u[1] = {} u = u[1] end refuge.json.encode(t)
--# json encode wide
local t = {} for i = 1, 1e6 do t[i] = i end while true do refuge.json.encode(t) end
--# json number of a million digits
refuge.json.decode(('9'):rep(1e6)) row{word = 'clean'}
--# json string of many escapes
refuge.json.decode('"' .. ('\\u0041'):rep(1e6) .. '"')
--# csv wide
local s = ('a,'):rep(2e6) for _, v in pairs(refuge.csv or {}) do pcall(v, s) end
--# csv one open quote
local s = '"' .. ('a\n'):rep(2e6) for _, v in pairs(refuge.csv or {}) do pcall(v, s) end
--# text of a giant
local s = ('word '):rep(1e6) local t = {} for i = 1, 20 do for _, v in pairs(refuge.text) do t[#t
+ 1] = {pcall(v, s .. #t)} end end
--# normalise combining marks
local s = 'a' .. ('\204\129'):rep(2e6) local t = {} for i = 1, 20 do for _, v in
pairs(refuge.unicode) do t[#t + 1] = {pcall(v, s)} end end
--# hex and base64 of a giant
local s = ('x'):rep(5e6) local t = {} for _, v in pairs(refuge.hash) do t[#t + 1] = {pcall(v, s)}
t[#t + 1] = {pcall(v, s .. #t)} end
--# uri of a giant
local s = 'http://' .. ('%41'):rep(1e6) local t = {} for i = 1, 20 do for _, v in
pairs(refuge.uri) do t[#t + 1] = {pcall(v, s .. i)} end end
--# memory in an error handler
xpcall(error, function() local t = {} while true do t[#t + 1] = {} end end)
--# memory in a coroutine
coroutine.wrap(function() local t = {} while true do t[#t + 1] = ('x'):rep(100) .. #t end end)()
--# memory in a comparator
table.sort({3, 2, 1}, function(a, b) local t = {} while true do t[#t + 1] = {} end end)
--# memory, caught
while true do pcall(function() local t = {} while true do t[#t + 1] = {} end end) end
--# chunk memory while loading
local t = {} while true do t[#t + 1] = {} end
