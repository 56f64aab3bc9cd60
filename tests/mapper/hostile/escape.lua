-- Reaching out: files, sockets, processes, machine code, by every name this Lua ever had.
--# io.open
local f = io.open(path) row{word = 'escaped ' .. f:read('*a')}
--# io.popen
row{word = 'escaped ' .. io.popen('cat ' .. path):read('*a')}
--# io.lines
for l in io.lines(path) do row{word = 'escaped ' .. l} end
--# io.write
io.write('escaped') row{word = 'escaped'}
--# io.stdout
io.stdout:write('x') row{word = 'escaped'}
--# io.tmpfile
io.tmpfile():write('x') row{word = 'escaped'}
--# os.execute
os.execute('touch ' .. path .. '.escaped') row{word = 'escaped'}
--# os.remove
os.remove(path) row{word = 'escaped'}
--# os.rename
os.rename(path, path .. '.escaped') row{word = 'escaped'}
--# os.tmpname
row{word = 'escaped ' .. os.tmpname()}
--# os.getenv
row{word = 'escaped ' .. os.getenv('PATH')}
--# os.exit
os.exit(0) row{word = 'escaped'}
--# os.setlocale
os.setlocale('C') row{word = 'escaped'}
--# the clock
row{word = 'escaped ' .. os.time()}
--# the processor's clock
row{word = 'escaped ' .. os.clock()}
--# the date
row{word = 'escaped ' .. os.date()}
--# chance
row{word = 'escaped ' .. math.random()}
--# seeded chance
math.randomseed(1) row{word = 'escaped ' .. math.random(100)}
--# require ffi
local ffi = require('ffi') row{word = 'escaped'}
--# require io
local io = require('io') row{word = 'escaped'}
--# require os
local os = require('os') row{word = 'escaped'}
--# require debug
local d = require('debug') row{word = 'escaped'}
--# require jit
local j = require('jit') row{word = 'escaped'}
--# require jit.util
local u = require('jit.util') row{word = 'escaped'}
--# require by path
require('/etc/passwd') row{word = 'escaped'}
--# require upwards
require('../../etc/passwd') row{word = 'escaped'}
--# require with a NUL
require('x\0/etc/passwd') row{word = 'escaped'}
--# require a C module
require('cjson') row{word = 'escaped'}
--# package.loaded
local io = package.loaded.io row{word = 'escaped'}
--# package.loadlib
package.loadlib('libc.so.6', 'system') row{word = 'escaped'}
--# package.preload
package.preload.x = 1 row{word = 'escaped'}
--# package.path
package.path = '/etc/?' row{word = 'escaped'}
--# package.seeall
package.seeall({}) row{word = 'escaped'}
--# module
module('x') row{word = 'escaped'}
--# dofile
dofile(path) row{word = 'escaped'}
--# loadfile
local f = loadfile(path) row{word = 'escaped'}
--# load of a text
local f = load('return io') row{word = f() and 'escaped' or 'clean'}
--# loadstring
local f = loadstring('return os') row{word = f() and 'escaped' or 'clean'}
--# load with an environment
local f = load('return io', 'x', 't', {}) row{word = f() and 'escaped' or 'clean'}
--# load of a function
local f = load(function() return nil end) row{word = f and f() and 'escaped' or 'clean'}
--# bytecode dumped
local s = string.dump(function() end) row{word = 'escaped'}
--# bytecode dumped through a string
local s = (''):dump(print) row{word = 'escaped'}
--# bytecode loaded
local f = loadstring('\27LJ\2\2\0') row{word = f and 'escaped' or 'clean'}
--# bytecode loaded by mode
local f = load('\27LJ\2\2\0', 'x', 'b') row{word = f and 'escaped' or 'clean'}
--# getfenv 0
local g = getfenv(0) row{word = g.io and 'escaped' or 'clean'}
--# getfenv 1
local g = getfenv(1) row{word = g.io and 'escaped' or 'clean'}
--# getfenv of a library function
local g = getfenv(string.rep) row{word = g.io and 'escaped' or 'clean'}
--# getfenv of print
local g = getfenv(print) row{word = g.io and 'escaped' or 'clean'}
--# getfenv of a coroutine
local g = getfenv(coroutine.create(function() end)) row{word = g.io and 'escaped' or 'clean'}
--# setfenv
setfenv(1, {}) row{word = 'escaped'}
--# setfenv 0
setfenv(0, {}) row{word = 'escaped'}
--# _G
row{word = _G and (_G.io or _G._G and _G._G.io) and 'escaped' or 'clean'}
--# _G through an index
row{word = _G['i' .. 'o'] and 'escaped' or 'clean'}
--# _ENV
row{word = _ENV and _ENV.io and 'escaped' or 'clean'}
--# rawget of _G
row{word = rawget(_G, 'os') and 'escaped' or 'clean'}
--# debug.getregistry
row{word = debug.getregistry() and 'escaped'}
--# debug.getinfo
row{word = debug.getinfo(1) and 'escaped'}
--# debug.getupvalue
row{word = debug.getupvalue(row, 1) and 'escaped'}
--# debug.setmetatable
debug.setmetatable('', {}) row{word = 'escaped'}
--# debug.sethook
debug.sethook(function() end, 'c') row{word = 'escaped'}
--# debug.setfenv
debug.setfenv(print, {}) row{word = 'escaped'}
--# debug.getlocal
row{word = debug.getlocal(1, 1) and 'escaped'}
--# debug.debug
debug.debug() row{word = 'escaped'}
--# jit.off
jit.off() row{word = 'escaped'}
--# jit.on
jit.on(true, true) row{word = 'escaped'}
--# jit.attach
jit.attach(function() end) row{word = 'escaped'}
--# jit.util
jit.util.funcinfo(print) row{word = 'escaped'}
--# ffi by name
ffi.cdef('int system(const char*);') ffi.C.system('id') row{word = 'escaped'}
--# ffi through a 64-bit literal
local x = 1LL row{word = getmetatable(x) and type(getmetatable(x)) == 'table' and 'escaped' or
'clean'}
--# string.buffer
local b = require('string.buffer') row{word = 'escaped'}
--# table.new
local n = require('table.new') row{word = 'escaped'}
--# newproxy
local p = newproxy(true) getmetatable(p).__gc = function() while true do end end row{word =
'escaped'}
--# __gc of a table
setmetatable({}, {__gc = function() while true do end end}) for i = 1, 1e5 do local t = {} end
row{word = 'clean'}
--# collectgarbage
collectgarbage('stop') row{word = 'escaped'}
--# gcinfo
row{word = gcinfo() and 'escaped'}
--# print
print('escaped') row{word = 'clean'}
--# a socket by LuaSocket
local s = require('socket').tcp() s:connect('127.0.0.1', port) row{word = 'escaped'}
--# posix by luaposix
require('posix').kill(pid, 9) row{word = 'escaped'}
--# everything that can be reached
local seen, list = {}, {} local function walk(v, name, depth) if seen[v] or depth > 6 then return
end seen[v] = true if type(v) == 'table' then for k, x in pairs(v) do if type(x) == 'function' or
type(x) == 'table' then walk(x, name .. '.' .. tostring(k), depth + 1) end local n = tostring(k)
if n == 'open' or n == 'popen' or n == 'execute' or n == 'loadlib' or n == 'cdef' or n ==
'getregistry' or n == 'dump' or n == 'newproxy' then list[#list + 1] = name .. '.' .. n end end
local m = getmetatable(v) if type(m) == 'table' then walk(m, name .. '!', depth + 1) end end end
walk({_G, string, table, math, refuge, coroutine, emit, blob and getmetatable(blob)}, '', 0)
row{word = #list > 0 and 'escaped ' .. table.concat(list, ' ') or 'clean'}
--# call whatever can be reached with the path
local seen = {} local function walk(v, depth) if seen[v] or depth > 5 then return end seen[v] =
true if type(v) == 'table' then for k, x in pairs(v) do if type(x) == 'function' then local ok,
got = pcall(x, path) if ok and type(got) == 'userdata' then row{word = 'escaped ' .. tostring(k)}
end elseif type(x) == 'table' then walk(x, depth + 1) end end end end walk({string, table, math,
refuge, coroutine}, 0)
--# path as a media type
emit.part{offset = 1, size = 1, media = path, name = path} row{word = 'clean'}
--# need by path
blob:need(path) row{word = 'escaped'}
--# sub as a pointer
row{word = blob.sub(path, 1, 100) and 'escaped'}
--# content of a table
row{word = blob.content({}) and 'escaped'}
--# content of somebody else's userdata
row{word = blob.content(emit) and 'escaped'}
--# sub far outside
local s = blob:sub(-2 ^ 53, 2 ^ 53) row{word = #s > blob.size and 'escaped' or 'clean'}
--# sub with nan
local s = blob:sub(0 / 0, 0 / 0) row{word = #s > blob.size and 'escaped' or 'clean'}
--# sub with infinity
local s = blob:sub(-1 / 0, 1 / 0) row{word = #s > blob.size and 'escaped' or 'clean'}
--# sub behind its end
local s = blob:sub(blob.size + 1, blob.size + 4096) row{word = #s > 0 and 'escaped' or 'clean'}
--# chunk io while loading
io.open('/etc/passwd')
--# chunk require while loading
require 'ffi'
--# chunk climb while loading
require '../../../etc/passwd'
--# chunk environment while loading
getfenv(0).io.open('/etc/passwd')
--# chunk bytecode while loading
loadstring(string.dump(function() end))()
