-- Calls that never end. Compiled loops see no hook, library loops neither: only a kill counts.
--# while true
while true do end
--# for to 1e15
for i = 1, 1e15 do end
--# repeat
repeat until false
--# goto
::again:: goto again
--# count up
local x = 0 while true do x = x + 1 end
--# float loop
local x = 0.5 while x > 0 do x = x * 1.0000001 + 0.1 if x > 1e9 then x = 0.5 end end
--# step that vanishes
local i = 2 ^ 53 while i < 2 ^ 53 + 10 do i = i + 1 i = i - 1 end
--# for with a tiny step
for i = 0, 1, 1e-300 do end
--# for with a zero step
for i = 1, 2, 0 do end
--# for backwards for ever
for i = 1, -1e15, -1 do end
--# nested
for a = 1, 1e6 do for b = 1, 1e6 do for c = 1, 1e6 do end end end
--# string bytes
local s, n = ('x'):rep(1000), 0 while true do for i = 1, #s do n = n + s:byte(i) end end
--# table reads
local t, n = {1, 2, 3}, 0 while true do n = n + t[1] + t[2] end
--# pcall of a loop
while true do pcall(function() while true do end end) end
--# pcall of an error
while true do pcall(error, 'x') end
--# pcall recursion
local function f() pcall(f) f() end f()
--# xpcall with a looping handler
xpcall(function() error('x') end, function() while true do end end)
--# xpcall with a failing handler
while true do xpcall(error, function() error('y') end) end
--# handler that calls itself
local function h() return xpcall(error, h) end while true do h() end
--# coroutine that loops
local co = coroutine.wrap(function() while true do end end) co()
--# coroutine ping pong
local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end
--# coroutines one after another
while true do coroutine.wrap(function() coroutine.yield(1) end)() end
--# coroutine in coroutine
local function deep(n) return coroutine.wrap(function() return deep(n + 1) end)() end deep(1)
--# tail calls
local function f() return f() end f()
--# mutual tail calls
local g local function f() return g() end function g() return f() end f()
--# metamethod loop
local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) local x = t[1]
--# index chain that is a ring
local a, b = {}, {} setmetatable(a, {__index = b}) setmetatable(b, {__index = a}) local x = a.y
--# newindex ring
local a, b = {}, {} setmetatable(a, {__newindex = b}) setmetatable(b, {__newindex = a}) a.y = 1
--# call ring
local t = setmetatable({}, {}) getmetatable(t).__call = t t()
--# iterator that never ends
for _ in function() return 1 end do end
--# pairs over a growing table
local t = {1} for k in pairs(t) do t[k + 1] = 1 end while true do for k in pairs(t) do end end
--# pairs by a metamethod
while true do for k in pairs(setmetatable({}, {__pairs = function() return next, {1} end})) do
end end
--# ipairs without an end
local t = setmetatable({}, {__index = function(_, i) return i end}) for i in ipairs(t) do end
while true do end
--# sort with a lying comparator
local t = {} for i = 1, 50000 do t[i] = i % 7 end while true do table.sort(t, function() return
true end) end
--# sort with a comparator that never returns
table.sort({3, 2, 1}, function() while true do end end)
--# sort again and again
local t = {} for i = 1, 20000 do t[i] = -i end while true do table.sort(t) table.sort(t,
function(a, b) return a > b end) end
--# gsub with a looping function
('x'):gsub('x', function() while true do end end)
--# gmatch for ever
while true do for _ in ('x'):rep(1000):gmatch('') do end end
--# format for ever
while true do local s = string.format('%99.99f', 1e300) end
--# tostring for ever
while true do local s = tostring(2 ^ 0.5) end
--# tonumber for ever
while true do local n = tonumber(('9'):rep(300)) end
--# load for ever
while true do local f = (loadstring or load or function() end)('return 1') end
--# unpack for ever
local t = {} for i = 1, 200 do t[i] = i end while true do local a = (unpack or table.unpack)(t) end
--# select for ever
while true do local a = select('#', 1, 2, 3) end
--# math for ever
local x = 1 while true do x = math.sin(x) + math.sqrt(2) end
--# bit operations for ever
local x = 1 while true do x = bit and bit.bxor(x, 12345) or x end
--# json for ever
while true do local s = refuge.json.encode({1, {2, {3}}}) refuge.json.decode(s) end
--# text for ever
while true do for _, v in pairs(refuge.text) do pcall(v, ('word '):rep(100)) end end
--# hash for ever
while true do for _, v in pairs(refuge.hash) do pcall(v, ('x'):rep(10000)) end end
--# csv for ever
while true do for _, v in pairs(refuge.csv or {}) do pcall(v, ('a,b\n'):rep(100)) end end
--# unicode for ever
while true do for _, v in pairs(refuge.unicode) do pcall(v, ('\195\164'):rep(100)) end end
--# uri for ever
while true do for _, v in pairs(refuge.uri) do pcall(v, 'http://a/b?c=d#e') end end
--# time for ever
while true do for _, v in pairs(refuge.time) do pcall(v, '2026-01-02T03:04:05Z') end end
--# blob calls for ever
while true do blob:sub(1, 3) blob:content() end
--# lines for ever
while true do for line in blob:lines() do end end
--# pick for ever
while true do pcall(blob.pick, blob, 'a', 'b') end
--# emit and catch for ever
while true do pcall(row, {word = 'x'}) end
--# emit unknown table for ever
while true do pcall(function() emit.nothing{} end) end
--# need for ever
while true do pcall(blob.need, blob, 'sha256-' .. ('0'):rep(64)) end
--# chunk loop while loading
local until_when = 0 while until_when < 1e15 do until_when = until_when + 1 end
--# chunk recursion while loading
local function f() return 1 + f() end pcall(f)
--# match function that loops
local f = function() while true do end end f()
