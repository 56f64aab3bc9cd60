/*
 * lua_time.c - instants with the offset they were written with, if it is known
 *
 * A time is microseconds since 1970 UTC, leap seconds not counted, and an offset in minutes east of
 * UTC or none. Text without a zone is read as UTC with the offset unknown. There is no clock and no
 * zone database: only numeric offsets, Z, and the zone names of RFC 5322.
 */
#include "mappers/lua_host.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SECOND_US INT64_C(1000000)
#define DAY_US (INT64_C(86400) * SECOND_US)
#define YEAR_MAX 290000 /* microseconds of a year beyond do not fit 64 bits */
#define OFFSET_MAX (24 * 60 - 1)

/* ---- the calendar (proleptic Gregorian) ---- */

struct civil {
    int64_t year;
    int month, day, hour, minute, second; /* month and day from 1 */
    int us;
};

static int64_t days_from_civil(int64_t year, int month, int day)
{
    int64_t era, year_of_era, day_of_year;

    year -= month <= 2; /* years begin in March, so that the leap day is their last */
    era = (year >= 0 ? year : year - 399) / 400;
    year_of_era = year - era * 400;
    day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void civil_from_us(int64_t us, struct civil *out)
{
    int64_t days = us / DAY_US, rest = us % DAY_US, era, day_of_era, year_of_era, day_of_year;
    int month;

    if (rest < 0) {
        rest += DAY_US;
        days--;
    }
    days += 719468;
    era = (days >= 0 ? days : days - 146096) / 146097;
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    month = (int)((5 * day_of_year + 2) / 153);
    out->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    out->month = month < 10 ? month + 3 : month - 9;
    out->year = year_of_era + era * 400 + (out->month <= 2);
    out->us = (int)(rest % SECOND_US);
    rest /= SECOND_US;
    out->second = (int)(rest % 60);
    out->minute = (int)(rest / 60 % 60);
    out->hour = (int)(rest / 3600);
}

static int month_days(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

/* second may be 60 (a leap second: the next minute's first) and hour 24 when all behind it is 0. */
static bool civil_to_us(const struct civil *c, int64_t *us)
{
    if (c->year < -YEAR_MAX || c->year > YEAR_MAX || c->month < 1 || c->month > 12 || c->day < 1 ||
        c->day > month_days(c->year, c->month) || c->hour > 24 || c->minute > 59 ||
        c->second > 60 || (c->hour == 24 && (c->minute || c->second || c->us)))
        return false;
    *us = days_from_civil(c->year, c->month, c->day) * DAY_US +
          ((c->hour * INT64_C(60) + c->minute) * 60 + c->second) * SECOND_US + c->us;
    return true;
}

/* ---- reading ---- */

struct cursor {
    const char *p, *end;
};

static int peek(const struct cursor *c)
{
    return c->p < c->end ? (unsigned char)*c->p : -1;
}

static bool take(struct cursor *c, char byte)
{
    if (peek(c) != byte)
        return false;
    c->p++;
    return true;
}

static void spaces(struct cursor *c)
{
    while (c->p < c->end && strchr(" \t\r\n", *c->p) && *c->p)
        c->p++;
}

/* least to most digits; false leaves the cursor anywhere. */
static bool digits(struct cursor *c, int least, int most, int64_t *out)
{
    int n = 0;

    for (*out = 0; n < most && peek(c) >= '0' && peek(c) <= '9'; n++)
        *out = *out * 10 + (*c->p++ - '0');
    return n >= least;
}

static bool digits_int(struct cursor *c, int least, int most, int *out)
{
    int64_t value;

    if (!digits(c, least, most, &value))
        return false;
    *out = (int)value;
    return true;
}

/* Digits of a second behind '.' or ','; those beyond the sixth are dropped. */
static bool fraction(struct cursor *c, int *us)
{
    int scale = 100000;

    if (!(peek(c) >= '0' && peek(c) <= '9'))
        return false;
    for (*us = 0; peek(c) >= '0' && peek(c) <= '9'; c->p++, scale /= 10)
        *us += (*c->p - '0') * scale;
    return true;
}

/* +02:00, +0200, +02, Z; false when there is none of these here. */
static bool zone(struct cursor *c, int16_t *offset)
{
    bool minus = peek(c) == '-';
    int hours, minutes = 0;

    if (take(c, 'Z') || take(c, 'z')) {
        *offset = 0;
        return true;
    }
    if (!take(c, '+') && !take(c, '-'))
        return false;
    if (!digits_int(c, 2, 2, &hours))
        return false;
    if (take(c, ':')) {
        if (!digits_int(c, 2, 2, &minutes))
            return false;
    } else if (peek(c) >= '0' && peek(c) <= '9' && !digits_int(c, 2, 2, &minutes)) {
        return false;
    }
    if (minutes > 59 || hours * 60 + minutes > OFFSET_MAX)
        return false;
    *offset = (int16_t)(hours * 60 + minutes);
    if (minus)
        *offset = *offset == 0 ? RF_OFFSET_UNKNOWN : (int16_t)-*offset; /* -00:00: RFC 3339 4.3 */
    return true;
}

static bool word_is(struct cursor *c, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(c->end - c->p) < n || strncasecmp(c->p, word, n) != 0)
        return false;
    c->p += n;
    return true;
}

static bool finish(const struct civil *civil, int16_t offset, int64_t *us, int16_t *out_offset)
{
    if (!civil_to_us(civil, us))
        return false;
    if (offset != RF_OFFSET_UNKNOWN)
        *us -= offset * 60 * SECOND_US;
    *out_offset = offset;
    return true;
}

/* 12:30, 12:30:05, 12:30:05.25, 1230, 123005 */
static bool iso_clock(struct cursor *c, struct civil *civil)
{
    bool extended;

    if (!digits_int(c, 2, 2, &civil->hour))
        return false;
    extended = take(c, ':');
    if (!digits_int(c, 2, 2, &civil->minute))
        return false;
    if (extended ? take(c, ':') : peek(c) >= '0' && peek(c) <= '9') {
        if (!digits_int(c, 2, 2, &civil->second))
            return false;
        if ((take(c, '.') || take(c, ',')) && !fraction(c, &civil->us))
            return false;
    }
    return true;
}

bool rf_lua_time_read(struct rf_bytes text, int64_t *us, int16_t *offset)
{
    struct cursor c = {(const char *)text.data, (const char *)text.data + text.size};
    struct civil civil = {0};
    int16_t found = RF_OFFSET_UNKNOWN;
    bool minus = peek(&c) == '-', signed_year = minus || peek(&c) == '+';

    if (signed_year)
        c.p++;
    if (!digits(&c, 4, signed_year ? 6 : 4, &civil.year))
        return false;
    if (minus)
        civil.year = -civil.year;
    if (take(&c, '-') ? !digits_int(&c, 2, 2, &civil.month) || !take(&c, '-') ||
                            !digits_int(&c, 2, 2, &civil.day)
                      : !digits_int(&c, 2, 2, &civil.month) || !digits_int(&c, 2, 2, &civil.day))
        return false;
    if (take(&c, 'T') || take(&c, 't') || take(&c, ' ')) {
        if (!iso_clock(&c, &civil))
            return false;
        take(&c, ' ');
        if (word_is(&c, "UTC") || word_is(&c, "GMT"))
            found = 0;
        else if (c.p < c.end && !zone(&c, &found))
            return false;
    }
    return c.p == c.end && finish(&civil, found, us, offset);
}

/* ---- mail's dates (RFC 5322, RFC 2822, the obsolete forms), asctime ---- */

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                     "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekdays[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static bool name_of(struct cursor *c, const char *const *names, int count, int *out)
{
    for (int i = 0; i < count; i++) {
        if (word_is(c, names[i])) {
            while (peek(c) >= 'a' && peek(c) <= 'z')
                c->p++; /* written out: "September" */
            *out = i + 1;
            return true;
        }
    }
    return false;
}

static bool mail_zone(struct cursor *c, int16_t *offset)
{
    static const struct {
        const char *name;
        int hours;
    } names[] = {{"UTC", 0}, {"UT", 0},  {"GMT", 0}, {"EST", -5}, {"EDT", -4}, {"CST", -6},
                 {"CDT", -5}, {"MST", -7}, {"MDT", -6}, {"PST", -8}, {"PDT", -7}};

    *offset = RF_OFFSET_UNKNOWN;
    spaces(c);
    if (peek(c) == '+' || peek(c) == '-')
        return zone(c, offset);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (word_is(c, names[i].name)) {
            *offset = (int16_t)(names[i].hours * 60);
            return true;
        }
    }
    while ((peek(c) >= 'A' && peek(c) <= 'Z') || (peek(c) >= 'a' && peek(c) <= 'z'))
        c->p++; /* another name says nothing: RFC 5322 4.3 */
    return true;
}

static bool mail_year(struct cursor *c, int64_t *year)
{
    const char *start = c->p;

    if (!digits(c, 2, 4, year))
        return false;
    if (c->p - start == 2)
        *year += *year < 50 ? 2000 : 1900;
    else if (c->p - start == 3)
        *year += 1900;
    return true;
}

static bool mail_clock(struct cursor *c, struct civil *civil)
{
    spaces(c);
    if (!digits_int(c, 1, 2, &civil->hour) || !take(c, ':') ||
        !digits_int(c, 2, 2, &civil->minute))
        return false;
    return !take(c, ':') || digits_int(c, 2, 2, &civil->second);
}

static bool mail_read(struct rf_bytes text, int64_t *us, int16_t *offset)
{
    struct cursor c = {(const char *)text.data, (const char *)text.data + text.size};
    struct civil civil = {0};
    int16_t found = RF_OFFSET_UNKNOWN;
    int weekday;

    spaces(&c);
    if (name_of(&c, weekdays, 7, &weekday))
        take(&c, ',');
    spaces(&c);
    if (name_of(&c, months, 12, &civil.month)) { /* asctime: month, day, clock, zone?, year */
        spaces(&c);
        if (!digits_int(&c, 1, 2, &civil.day) || !mail_clock(&c, &civil))
            return false;
        spaces(&c);
        if (!(peek(&c) >= '0' && peek(&c) <= '9') && !mail_zone(&c, &found))
            return false;
        spaces(&c);
        if (!digits(&c, 4, 4, &civil.year))
            return false;
    } else {
        if (!digits_int(&c, 1, 2, &civil.day))
            return false;
        while (peek(&c) == ' ' || peek(&c) == '-')
            c.p++;
        if (!name_of(&c, months, 12, &civil.month))
            return false;
        while (peek(&c) == ' ' || peek(&c) == '-' || peek(&c) == '.')
            c.p++;
        if (!mail_year(&c, &civil.year) || !mail_clock(&c, &civil) || !mail_zone(&c, &found))
            return false;
    }
    spaces(&c);
    if (peek(&c) == '(') /* a comment may follow: "(CEST)" */
        c.p = c.end;
    return c.p == c.end && finish(&civil, found, us, offset);
}

/* ---- values ---- */

void rf_lua_time_push(lua_State *L, int64_t us, int16_t offset)
{
    struct rf_lua_time *time = lua_newuserdata(L, sizeof *time);

    *time = (struct rf_lua_time){.tag = RF_TAG_TIME, .offset = offset, .us = us};
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_time);
    lua_setmetatable(L, -2);
}

static const struct rf_lua_time *check_time(lua_State *L, int index, const char *what)
{
    const struct rf_lua_time *time = rf_host_to(L, index, RF_TAG_TIME);

    if (!time)
        rf_host_error(L, "%s: a time was expected, got %s", what,
                      lua_isnoneornil(L, index) ? "nil" : luaL_typename(L, index));
    return time;
}

static void local_civil(const struct rf_lua_time *time, struct civil *out)
{
    int64_t shift = time->offset == RF_OFFSET_UNKNOWN ? 0 : time->offset * 60 * SECOND_US;

    civil_from_us(time->us + shift, out);
}

static size_t put_zone(const struct rf_lua_time *time, bool colon, char *out, size_t size)
{
    int minutes = time->offset < 0 ? -time->offset : time->offset;

    if (time->offset == RF_OFFSET_UNKNOWN)
        return 0;
    if (time->offset == 0)
        return (size_t)snprintf(out, size, colon ? "Z" : "+0000");
    return (size_t)snprintf(out, size, "%c%02d%s%02d", time->offset < 0 ? '-' : '+', minutes / 60,
                            colon ? ":" : "", minutes % 60);
}

static size_t put_year(int64_t year, char *out, size_t size)
{
    if (year >= 0 && year <= 9999)
        return (size_t)snprintf(out, size, "%04d", (int)year);
    return (size_t)snprintf(out, size, "%+07lld", (long long)year);
}

size_t rf_lua_time_text(const struct rf_lua_time *time, char *out)
{
    struct civil c;
    size_t n;

    local_civil(time, &c);
    n = put_year(c.year, out, 48);
    n += (size_t)snprintf(out + n, 48 - n, "-%02d-%02dT%02d:%02d:%02d", c.month, c.day, c.hour,
                          c.minute, c.second);
    if (c.us)
        n += (size_t)snprintf(out + n, 48 - n, ".%06d", c.us);
    return n + put_zone(time, true, out + n, 48 - n);
}

/* time.parse(text): a time, or nil and why not. */
static int time_parse(lua_State *L)
{
    struct rf_bytes text;
    int64_t us;
    int16_t offset;

    if (lua_isnoneornil(L, 1) || rf_host_is_null(L, 1)) {
        lua_pushnil(L);
        lua_pushliteral(L, "there is no text");
        return 2;
    }
    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    while (text.size && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = rf_bytes(text.data + 1, text.size - 1);
    while (text.size && strchr(" \t\r\n", text.data[text.size - 1]) && text.data[text.size - 1])
        text.size--;
    if (text.size < 200 &&
        (rf_lua_time_read(text, &us, &offset) || mail_read(text, &us, &offset))) {
        rf_lua_time_push(L, us, offset);
        return 1;
    }
    lua_pushnil(L);
    lua_pushliteral(L, "neither ISO 8601 nor a mail's date");
    return 2;
}

/* A whole number of units or, of seconds, a fraction too. */
static bool scale(double number, int64_t unit, int64_t *us)
{
    double value = number * (double)unit;

    if (!(fabs(value) < (double)YEAR_MAX * 366 * (double)DAY_US))
        return false;
    *us = (int64_t)floor(value + 0.5);
    return true;
}

/* time.epoch(number, unit = "s", offset): number since 1970 UTC in s, ms, us or ns. */
static int time_epoch(lua_State *L)
{
    static const char *const units[] = {"s", "ms", "us", "ns", NULL};
    static const int64_t scales[] = {1000000, 1000, 1, 0};
    int unit = luaL_checkoption(L, 2, "s", units);
    lua_Integer offset = luaL_optinteger(L, 3, RF_OFFSET_UNKNOWN);
    int64_t integer, us = 0;

    if (offset != RF_OFFSET_UNKNOWN && (offset < -OFFSET_MAX || offset > OFFSET_MAX))
        rf_host_error(L, "time.epoch: an offset is minutes within a day");
    if (rf_host_to_int64(L, 1, &integer)) {
        if (unit == 3)
            us = integer / 1000 - (integer % 1000 < 0);
        else if (integer < -(INT64_MAX / scales[unit]) || integer > INT64_MAX / scales[unit])
            rf_host_error(L, "time.epoch: the number is out of range");
        else
            us = integer * scales[unit];
    } else if (!(unit == 3 ? scale(luaL_checknumber(L, 1) / 1000, 1, &us)
                           : scale(luaL_checknumber(L, 1), scales[unit], &us))) {
        rf_host_error(L, "time.epoch: the number is out of range");
    }
    rf_lua_time_push(L, us, (int16_t)offset);
    return 1;
}

static int date_field(lua_State *L, const char *name, int fallback)
{
    double n;

    lua_getfield(L, 1, name);
    if (lua_isnil(L, -1) && fallback != INT16_MIN) {
        lua_pop(L, 1);
        return fallback;
    }
    n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
    if (!(fabs(n) < 1e6) || n != floor(n))
        rf_host_error(L, "time.date: '%s' must be a whole number", name);
    lua_pop(L, 1);
    return (int)n;
}

/* time.date{year=, month=, day=, hour=, min=, sec=, us=, offset=}: nil: there is no such day. */
static int time_date(lua_State *L)
{
    struct civil c;
    int offset = RF_OFFSET_UNKNOWN;
    int64_t us;

    luaL_checktype(L, 1, LUA_TTABLE);
    c.year = date_field(L, "year", INT16_MIN);
    c.month = date_field(L, "month", INT16_MIN);
    c.day = date_field(L, "day", INT16_MIN);
    c.hour = date_field(L, "hour", 0);
    c.minute = date_field(L, "min", 0);
    c.second = date_field(L, "sec", 0);
    c.us = date_field(L, "us", 0);
    lua_getfield(L, 1, "offset");
    if (!lua_isnil(L, -1))
        offset = date_field(L, "offset", 0);
    if (c.hour < 0 || c.minute < 0 || c.second < 0 || c.us < 0 || c.us > 999999 ||
        (offset != RF_OFFSET_UNKNOWN && (offset < -OFFSET_MAX || offset > OFFSET_MAX)) ||
        !civil_to_us(&c, &us)) {
        lua_pushnil(L);
        return 1;
    }
    rf_lua_time_push(L, us - (offset == RF_OFFSET_UNKNOWN ? 0 : offset * 60 * SECOND_US),
                     (int16_t)offset);
    return 1;
}

static int weekday_of(const struct rf_lua_time *time)
{
    int64_t shift = time->offset == RF_OFFSET_UNKNOWN ? 0 : time->offset * 60 * SECOND_US;
    int64_t us = time->us + shift, days = us / DAY_US - (us % DAY_US < 0);

    return (int)(((days + 3) % 7 + 7) % 7) + 1; /* 1970-01-01 was a Thursday; Monday is 1 */
}

static int yearday_of(const struct civil *c)
{
    return (int)(days_from_civil(c->year, c->month, c->day) - days_from_civil(c->year, 1, 1)) + 1;
}

static void put_directive(lua_State *L, struct rf_buf *buf, const struct rf_lua_time *time,
                          const struct civil *c, char directive)
{
    static const char *const month_names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    static const char *const day_names[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
    char text[48];

    switch (directive) {
    case 'Y':
        rf_buf_put(buf, text, put_year(c->year, text, sizeof text));
        return;
    case 'm':
        rf_buf_printf(buf, "%02d", c->month);
        return;
    case 'd':
        rf_buf_printf(buf, "%02d", c->day);
        return;
    case 'H':
        rf_buf_printf(buf, "%02d", c->hour);
        return;
    case 'M':
        rf_buf_printf(buf, "%02d", c->minute);
        return;
    case 'S':
        rf_buf_printf(buf, "%02d", c->second);
        return;
    case 'f':
        rf_buf_printf(buf, "%06d", c->us);
        return;
    case 'j':
        rf_buf_printf(buf, "%03d", yearday_of(c));
        return;
    case 'b':
        rf_buf_put_text(buf, month_names[c->month - 1]);
        return;
    case 'a':
        rf_buf_put_text(buf, day_names[weekday_of(time) - 1]);
        return;
    case 'z':
        rf_buf_put(buf, text, put_zone(time, false, text, sizeof text));
        return;
    case '%':
        rf_buf_put_u8(buf, '%');
        return;
    default:
        rf_host_error(L, "time.format: '%%%c' is none of %%Y %%m %%d %%H %%M %%S %%f %%j %%b %%a "
                         "%%z %%%%", directive ? directive : ' ');
    }
}

/* time.format(time, pattern): ISO 8601 without a pattern; directives as in strftime. */
static int time_format(lua_State *L)
{
    const struct rf_lua_time *time = check_time(L, 1, "time.format");
    const char *pattern = luaL_optstring(L, 2, NULL);
    struct rf_buf *buf;
    struct civil c;
    char text[48];

    if (!pattern) {
        lua_pushlstring(L, text, rf_lua_time_text(time, text));
        return 1;
    }
    buf = rf_host_scratch(L);
    local_civil(time, &c);
    for (; *pattern; pattern++) {
        if (*pattern != '%')
            rf_buf_put_u8(buf, (uint8_t)*pattern);
        else
            put_directive(L, buf, time, &c, *++pattern);
        if (!*pattern)
            break;
    }
    rf_host_push_scratch(L);
    return 1;
}

/* time:add(seconds) */
static int time_add(lua_State *L)
{
    const struct rf_lua_time *time = check_time(L, 1, "time:add");
    int64_t us;

    if (!scale(luaL_checknumber(L, 2), SECOND_US, &us))
        rf_host_error(L, "time:add: the number of seconds is out of range");
    rf_lua_time_push(L, time->us + us, time->offset);
    return 1;
}

/* time:at(offset): the same instant seen with that offset; without one, unknown. */
static int time_at(lua_State *L)
{
    const struct rf_lua_time *time = check_time(L, 1, "time:at");
    lua_Integer offset = luaL_optinteger(L, 2, RF_OFFSET_UNKNOWN);

    if (offset != RF_OFFSET_UNKNOWN && (offset < -OFFSET_MAX || offset > OFFSET_MAX))
        rf_host_error(L, "time:at: an offset is minutes within a day");
    rf_lua_time_push(L, time->us, (int16_t)offset);
    return 1;
}

/* Upvalue 1: methods by name. */
static int time_index(lua_State *L)
{
    const struct rf_lua_time *time = check_time(L, 1, "time");
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    struct civil c;

    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (!lua_isnil(L, -1))
        return 1;
    local_civil(time, &c);
    if (strcmp(name, "year") == 0)
        lua_pushinteger(L, (lua_Integer)c.year);
    else if (strcmp(name, "month") == 0)
        lua_pushinteger(L, c.month);
    else if (strcmp(name, "day") == 0)
        lua_pushinteger(L, c.day);
    else if (strcmp(name, "hour") == 0)
        lua_pushinteger(L, c.hour);
    else if (strcmp(name, "min") == 0)
        lua_pushinteger(L, c.minute);
    else if (strcmp(name, "sec") == 0)
        lua_pushinteger(L, c.second);
    else if (strcmp(name, "us") == 0)
        lua_pushinteger(L, c.us);
    else if (strcmp(name, "weekday") == 0)
        lua_pushinteger(L, weekday_of(time));
    else if (strcmp(name, "yearday") == 0)
        lua_pushinteger(L, yearday_of(&c));
    else if (strcmp(name, "epoch") == 0)
        lua_pushnumber(L, (lua_Number)time->us / (lua_Number)SECOND_US);
    else if (strcmp(name, "epoch_us") == 0)
        rf_host_push_int(L, time->us);
    else if (strcmp(name, "offset") != 0)
        rf_host_error(L, "a time has no field or method '%.60s'", name);
    else if (time->offset != RF_OFFSET_UNKNOWN)
        lua_pushinteger(L, time->offset);
    return 1; /* the nil of the method looked for, when the offset is not known */
}

static int time_tostring(lua_State *L)
{
    char text[48];

    lua_pushlstring(L, text, rf_lua_time_text(check_time(L, 1, "tostring"), text));
    return 1;
}

static int time_equal(lua_State *L)
{
    const struct rf_lua_time *a = rf_host_to(L, 1, RF_TAG_TIME);
    const struct rf_lua_time *b = rf_host_to(L, 2, RF_TAG_TIME);

    lua_pushboolean(L, a && b && a->us == b->us);
    return 1;
}

static int time_less(lua_State *L)
{
    lua_pushboolean(L, check_time(L, 1, "<")->us < check_time(L, 2, "<")->us);
    return 1;
}

static int time_less_equal(lua_State *L)
{
    lua_pushboolean(L, check_time(L, 1, "<=")->us <= check_time(L, 2, "<=")->us);
    return 1;
}

/* The seconds from b to a. */
static int time_subtract(lua_State *L)
{
    const struct rf_lua_time *a = check_time(L, 1, "-"), *b = check_time(L, 2, "-");

    lua_pushnumber(L, ((lua_Number)a->us - (lua_Number)b->us) / (lua_Number)SECOND_US);
    return 1;
}

void rf_lua_open_time(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"date", time_date}, {"epoch", time_epoch}, {"format", time_format}, {"parse", time_parse},
    };
    static const struct rf_host_function methods[] = {
        {"add", time_add}, {"at", time_at}, {"format", time_format},
    };
    static const struct rf_host_function metamethods[] = {
        {"__tostring", time_tostring}, {"__eq", time_equal},       {"__lt", time_less},
        {"__le", time_less_equal},     {"__sub", time_subtract},
    };

    lua_newtable(L);
    rf_host_register(L, metamethods, sizeof metamethods / sizeof metamethods[0]);
    lua_newtable(L);
    rf_host_register(L, methods, sizeof methods / sizeof methods[0]);
    lua_pushcclosure(L, time_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "time");
    lua_setfield(L, -2, "__metatable");
    rf_host(L)->ref_time = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
