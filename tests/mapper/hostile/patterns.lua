-- Patterns that take exponential or high polynomial time inside one library call.
--# exponential find
string.find(('a'):rep(60), ('a?'):rep(60) .. ('a'):rep(60) .. 'b')
--# polynomial find, 3
string.find(('a'):rep(100000), '.-.-.-b')
--# polynomial find, 4
string.find(('x'):rep(10000), 'x*x*x*x*y')
--# polynomial find, 8
string.find(('x'):rep(2000), ('x-'):rep(8) .. 'y')
--# gsub blow-up
string.gsub(('a'):rep(100000), '(a*)*b', '')
--# gsub blow-up, nested captures
string.gsub(('a'):rep(30000), '((a*)(a*)(a*))b', '')
--# gmatch blow-up
for _ in string.gmatch(('a'):rep(20000), 'a-a-a-a-b') do end
--# match blow-up through the metatable
(('a'):rep(20000)):match('.*.*.*.*b')
--# balanced
string.find(('('):rep(200000), '%b()%b()')
--# balanced at every place
string.gsub(('('):rep(100000), '%b()', '')
--# frontier
string.find(('a '):rep(100000), '%f[%w]a-%f[%W]-%f[%w]b-c')
--# back reference
string.find(('ab'):rep(5000), '(.-)(.-)%1%2%1%2c')
--# class blow-up
string.find(('a1'):rep(5000), '[%w]-[%w]-[%w]-[%w]-!')
--# set with many members
string.find(('q'):rep(5000), ('[' .. ('abcdefgh'):rep(1000) .. ']-'):rep(2) .. 'z')
--# thousands of optionals
string.find(('a'):rep(1000), ('a?'):rep(1000) .. ('a'):rep(1000))
--# pattern nested too deep
string.find('x', ('('):rep(10000))
--# pattern that ends early
string.find('x', '[')
--# pattern with an escape at its end
string.find('x', '%')
--# pattern too long
string.find(('a'):rep(100), ('a'):rep(1000000) .. 'b')
--# captures without number
string.find(('a'):rep(100), ('(a)'):rep(100))
--# gsub with a huge replacement
string.gsub(('a'):rep(10000), 'a', ('b'):rep(10000))
--# gsub doubling
local s = 'x' while true do s = s:gsub('.', '%0%0') end
--# gsub with positions
string.gsub(('a'):rep(1000000), '()', '%1')
--# gsub with a table that grows
local t = setmetatable({}, {__index = function(t, k) t[k .. 'x'] = 1 return k .. k end}) local s
= 'ab' while true do s = s:gsub('%w+', t) end
--# find plain in large
while true do string.find(('a'):rep(100000), ('a'):rep(50000) .. 'b', 1, true) end
--# rep in rep
string.find(string.rep(string.rep('a', 300), 300), string.rep('a*', 20) .. 'b')
