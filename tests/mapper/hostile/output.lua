-- Output that is too much, of the wrong kind, or a lie.
--# rows without end
while true do row{word = 'x', num = 1} end
--# rows without end, caught
while true do pcall(row, {word = ('x'):rep(1000)}) end
--# large rows
for i = 1, 100 do row{word = ('x'):rep(1e6) .. i} end
--# one giant value
row{word = ('x'):rep(7e6)}
--# many columns
local t = {} for i = 1, 1e5 do t['c' .. i] = 1 end row(t)
--# unknown column
row{other = 1}
--# unknown table
emit.others{word = 1}
--# another mapper's table
emit.good_t{word = 'escaped'}
--# a table by number
emit[1]{word = 'x'}
--# a table called __index
emit.__index{word = 'x'}
--# a row that is a string
row('escaped')
--# a row that is nil
row(nil)
--# a row that is itself
local t = {} t.word = t row(t)
--# a row with a metatable
row(setmetatable({}, {__index = function() return 'clean' end}))
--# a row whose pairs lie
row(setmetatable({word = 'clean'}, {__pairs = function() return function() return 'word',
'escaped' end end}))
--# a function as a value
row{word = function() end}
--# a coroutine as a value
row{word = coroutine.create(function() end)}
--# userdata as a value
row{word = blob}
--# emit as a value
row{word = emit}
--# a value whose tostring loops
row{word = setmetatable({}, {__tostring = function() while true do end end})}
--# a value whose tostring is no string
row{word = setmetatable({}, {__tostring = function() return {} end})}
--# number out of range
row{num = 2 ^ 63}
--# number negative out of range
row{num = -2 ^ 64}
--# nan
row{num = 0 / 0}
--# infinity
row{num = 1 / 0}
--# fraction for an int
row{num = 1.5}
--# text for an int
row{num = 'seven'}
--# text with NUL
row{word = 'a\0escaped' == 'a' and 'escaped' or 'a\0b'}
--# invalid UTF-8
row{word = '\255\254\253'}
--# half a surrogate
row{word = '\237\160\128'}
--# control bytes
row{word = '\27[2J\27]0;owned\7'}
--# SQL
row{word = "'); DROP TABLE blobs; --"}
--# emit after an error was caught
pcall(error, 'x') row{word = 'clean'} error('late')
--# emit from a coroutine
coroutine.wrap(function() row{word = 'clean'} end)()
--# emit from a comparator
table.sort({2, 1}, function(a, b) row{word = 'clean'} return a < b end)
--# emit from a handler
xpcall(error, function() row{word = 'clean'} end)
--# emit from gsub
('xxx'):gsub('x', function() row{word = 'clean'} end)
--# parts without end
while true do emit.part{offset = 1, size = 1} end
--# part behind the end
emit.part{offset = 1, size = 2 ^ 40}
--# part before the start
emit.part{offset = -100, size = 10}
--# part of negative size
emit.part{offset = 1, size = -1}
--# part at nan
emit.part{offset = 0 / 0, size = 0 / 0}
--# part of overflowing range
emit.part{offset = 2 ^ 63, size = 2 ^ 63}
--# part with giant bytes
for i = 1, 10 do emit.part{bytes = ('x'):rep(1e6), media = 'text/plain'} end
--# part with a giant name
emit.part{bytes = 'x', name = ('n'):rep(1e6)}
--# part with a giant media type
emit.part{bytes = 'x', media = ('m'):rep(1e6)}
--# part with both
emit.part{bytes = 'x', offset = 1, size = 1}
--# part with neither
emit.part{}
--# part with NULs in its name
emit.part{bytes = 'x', name = 'a\0b', media = 'a\0b'}
--# part named like a path
emit.part{bytes = 'x', name = '../../../etc/passwd'}
--# part equal to the item
emit.part{offset = 1, size = blob.size}
--# parts of bytes that are tables
emit.part{bytes = {}, media = {}}
--# needs without end
for i = 1, 1e6 do pcall(blob.need, blob, string.format('sha256-%064x', i)) end row{word = 'clean'}
--# need of nonsense
blob:need('sha256-zz')
--# need of a giant
blob:need(('x'):rep(7e6))
--# need of a table
blob:need({})
--# need of itself
local b = blob:need(blob.ref) row{word = 'clean'}
--# error with a giant
error(('x'):rep(7e6))
--# error with control bytes
error('\27[2J\0\1\2\r\n' .. ('\255'):rep(1000))
--# error with a table
error({})
--# error with nil
error(nil)
--# error with a function
error(function() end)
--# error with a boolean
error(true)
--# error with the blob
error(blob)
--# error with a tostring that loops
error(setmetatable({}, {__tostring = function() while true do end end}))
--# error with a message that lies
error({message = setmetatable({}, {__tostring = function() return 'escaped' end})})
--# error with a far level
error('x', 2 ^ 31)
--# error with a negative level
error('x', -1)
--# error from a coroutine, deep
local function f(n) if n == 0 then error('deep') end return coroutine.wrap(function() return f(n
- 1) end)() end f(100)
--# assert with a giant
assert(false, ('x'):rep(7e6))
--# assert with a table
assert(false, {})
--# error in the handler's handler
xpcall(error, function() return xpcall(error, function() error(error) end) end) row{word = 'clean'}
--# stack overflow in a handler
xpcall(error, function() local function f() return 1 + f() end f() end) row{word = 'clean'}
--# yield out of the map function
coroutine.yield('escaped')
--# resume of itself
coroutine.resume(coroutine.running() or coroutine.create(function() end)) row{word = 'clean'}
--# return something
return 'escaped', {}, blob
--# format with a missing argument
string.format('%d')
--# format with an unknown letter
string.format('%n%y', 1)
--# format with a table
string.format('%d', {})
--# format with a pointer
row{word = string.format('%p', {}):find('0x') and 'escaped' or 'clean'}
--# format of a table
row{word = tostring({}):find('0x') and 'escaped' or 'clean'}
--# format of a function
row{word = tostring(row):find('0x') and 'escaped' or 'clean'}
--# comma for a point
row{word = tostring(1.5) == '1.5' and tonumber('1,5') == nil and 'clean' or 'escaped'}
