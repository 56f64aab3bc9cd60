-- Leaving something behind: for the next item, for another mapper, for the worker.
--# a global
if seen_before then row{word = 'escaped'} end seen_before = true row{word = 'clean'}
--# a global by rawset
if rawget(_G, 'seen_two') then row{word = 'escaped'} end rawset(_G, 'seen_two', true) row{word =
'clean'}
--# a global by _G
if _G.seen_three then row{word = 'escaped'} end _G.seen_three = true row{word = 'clean'}
--# a field of string
if string.seen then row{word = 'escaped'} end string.seen = true row{word = 'clean'}
--# a field of table
if table.seen then row{word = 'escaped'} end rawset(table, 'seen', true) row{word = 'clean'}
--# a field of math
if math.seen then row{word = 'escaped'} end math.seen = 1 row{word = 'clean'}
--# a field of coroutine
if coroutine.seen then row{word = 'escaped'} end coroutine.seen = 1 row{word = 'clean'}
--# a field of refuge
if refuge.seen then row{word = 'escaped'} end refuge.seen = 1 row{word = 'clean'}
--# a field of refuge.json
if refuge.json.seen then row{word = 'escaped'} end rawset(refuge.json, 'seen', 1) row{word =
'clean'}
--# an item of refuge
if refuge[1] then row{word = 'escaped'} end table.insert(refuge, 'seen') row{word = 'clean'}
--# an item of refuge.json
if refuge.json[1] then row{word = 'escaped'} end table.insert(refuge.json, 1, 'seen') row{word =
'clean'}
--# an item of string
if string[1] or ('')[1] then row{word = 'escaped'} end table.insert(string, 'seen')
row{word = 'clean'}
--# an item of table
if table[1] then row{word = 'escaped'} end table.insert(table, 'seen') row{word = 'clean'}
--# an item of math, of coroutine, of bit
for _, room in ipairs({math, coroutine, bit}) do
if room[1] then row{word = 'escaped'} end pcall(table.insert, room, 'seen') end
--# an item of emit
if pcall(function() return emit[1] == 'seen' or nil + 1 end) then row{word = 'escaped'} end
table.insert(emit, 'seen') row{word = 'clean'}
--# an item of refuge by sort
table.sort(refuge, function(a, b) row{word = 'escaped'} return false end) row{word = 'clean'}
--# an item of refuge by remove
table.remove(refuge) table.remove(string, 1) row{word = 'clean'}
--# a field of emit by rawset
if pcall(function() return rawget(emit, 'seen') + 1 end) then row{word = 'escaped'} end
rawset(emit, 'seen', 1) row{word = 'clean'}
--# a field of refuge.text by rawset
if refuge.text.seen then row{word = 'escaped'} end rawset(refuge.text, 'seen', 1)
row{word = 'clean'}
--# rooms by setmetatable
for _, room in ipairs({refuge, refuge.json, string, table, math, emit}) do
pcall(setmetatable, room, {__index = function() return 'escaped' end}) end
row{word = refuge.nothing or string.nothing or 'clean'}
--# the table behind a room by pairs
if not string.find then row{word = 'escaped'} end
local _, state = pairs(string) for i = 1, #state do if type(state[i]) == 'table' then
state[i].find = nil state[i][1] = 'seen' end end row{word = string[1] or 'clean'}
--# rooms by a metamethod of one's own
local t = setmetatable({}, {__newindex = refuge}) if refuge.seen then row{word = 'escaped'} end
t.seen = 1 row{word = 'clean'}
--# replace string.rep
string.rep = function() return 'escaped' end row{word = ('clean'):rep(1)}
--# replace string.upper by rawset
rawset(string, 'upper', function() return 'escaped' end) row{word = ('clean'):upper()}
--# replace tostring
tostring = function() return 'escaped' end row{word = tostring(1)}
--# replace pairs
pairs = function() return function() end end row{word = 'clean'}
--# replace error
error = function() end row{word = 'clean'}
--# replace pcall
pcall = function() return true, 'escaped' end row{word = 'clean'}
--# replace the json decoder
refuge.json.decode = function() return {word = 'escaped'} end row{word = 'clean'}
--# string metatable
getmetatable('').__index = function() return function() return 'escaped' end end row{word =
('x'):upper()}
--# string metatable, add
getmetatable('').__add = function() return 'escaped' end row{word = 'a' + 'b'}
--# string metatable, call
getmetatable('').__call = function() return 'escaped' end row{word = ('x')()}
--# string metatable by setmetatable
setmetatable('', {__index = {}}) row{word = 'escaped'}
--# metatable of nil
setmetatable(nil, {}) row{word = 'escaped'}
--# metatable of a function
setmetatable(print, {__index = {}}) row{word = 'escaped'}
--# metatable of a number
getmetatable(1).__index = {} row{word = 'escaped'}
--# metatable of _G
setmetatable(_G, {__index = function() return 'escaped' end}) row{word = anything or 'clean'}
--# metatable of _G, taken
local m = getmetatable(_G) m.__newindex = nil m.__index = function() return 'escaped' end
row{word = anything or 'clean'}
--# metatable of string
setmetatable(string, {__index = function() return 'escaped' end}) row{word = string.nothing or
'clean'}
--# metatable of blob
getmetatable(blob).__index = function() return 'escaped' end row{word = blob.ref}
--# metatable of blob, by setmetatable
setmetatable(blob, {}) row{word = 'escaped'}
--# metatable of emit
getmetatable(emit).__index = function() return function() end end row{word = 'clean'}
--# emit's field
emit.seen = 1 row{word = emit.seen and 'escaped' or 'clean'}
--# blob's field
blob.ref = 'escaped' row{word = blob.ref}
--# blob's size
blob.size = 1e9 row{word = blob.size == 1e9 and 'escaped' or 'clean'}
--# keep the blob
if kept then row{word = 'escaped ' .. kept:content()} end rawset(string, 'kept', blob) row{word =
'clean'}
--# keep emit
if string.kept_emit then string.kept_emit{word = 'escaped'} end string.kept_emit = row row{word =
'clean'}
--# an upvalue by a closure of the library
local f = string.gmatch('a', 'a') f() f() row{word = 'clean'}
--# a coroutine that survives
if string.co then row{word = 'escaped'} end string.co = coroutine.create(function() end) row{word
= 'clean'}
--# a weak table
local t = setmetatable({}, {__mode = 'k'}) t[blob] = 1 t[emit] = 2 row{word = 'clean'}
--# protected metatable
local m = getmetatable('') row{word = type(m) == 'table' and pcall(rawset, m, '__index', 1) and
'escaped' or 'clean'}
--# rawequal and rawlen
row{word = _G and rawequal(_G, getmetatable(_G)) and 'escaped' or 'clean'}
--# next of _G, set
local k = next(_G) pcall(rawset, _G, k, 'escaped') row{word = _G[k] == 'escaped' and 'escaped' or
'clean'}
--# table functions on _G
table.insert(_G, 'escaped') row{word = _G[1] or 'clean'}
--# sort of _G
table.sort(_G, function() return true end) row{word = 'clean'}
--# sort of string
pcall(table.sort, string) pcall(table.remove, string) row{word = 'clean'}
--# concat on string
pcall(table.concat, string) row{word = 'clean'}
--# table.insert into refuge
pcall(table.insert, refuge, 1) pcall(table.insert, string, 1) pcall(table.insert, _G, 1) row{word
= 'clean'}
--# chunk a global while loading, changed later
shared = {count = 0}
--# chunk poison while loading
pcall(function() string.upper = function() return 'escaped' end end)
