/*
 * lua_shape.h - the table a mapper file returns: its fields, and the JSON made of them
 *
 * Private to mappers/lua_*.c. Each function works on the mapper's table on top of the stack, leaves
 * the stack as it was, and raises with "<file>: <path>: <what is wrong>".
 */
#ifndef RF_MAPPERS_LUA_SHAPE_H
#define RF_MAPPERS_LUA_SHAPE_H

#include "mappers/lua_host.h"

/* Every field is known and of its type. */
void rf_shape_check(lua_State *L, const char *file);

/* Copy match = { media = ..., name = ... } into env->patterns; none for a function or no match. */
void rf_shape_patterns(lua_State *L, struct rf_env *env);

/* The declaration (form: core/decl.h) and the tests (form: rf_env_tests). */
void rf_shape_declare(lua_State *L, const char *file, struct rf_buf *json);
void rf_shape_tests(lua_State *L, const char *file, struct rf_buf *json);

#endif
