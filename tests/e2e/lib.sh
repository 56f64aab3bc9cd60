# lib.sh - what every end-to-end test shares
#
# A test is tests/e2e/tNNNN-topic.sh: POSIX sh, run alone from anywhere, TAP on stdout, against the
# built program. It starts with
#
#     . "$(dirname "$0")/lib.sh"
#
# and ends with `done_testing`. It finds an empty folder in $tmp (removed afterwards, together with
# every process it started by `background`), a home that does not exist yet in $REFUGE_HOME, and the
# program in $REFUGE (from the environment, else build/dev). REFUGE_TEST_KEEP=1 keeps the folder.
#
#     run refuge put -  <file       runs it; $status, $out and $err (files) hold what came of it
#     ok "name" command...          passes when the command succeeds
#     is "name" GOT WANT            passes when the texts are equal
#     status_is "name" N            of the last run
#     out_is "name" TEXT            the last run's stdout, its final newline left out
#     out_has "name" TEXT           ... contains TEXT; also out_lacks, err_has, err_lacks
#     out_matches "name" REGEX      ... has a line that matches (grep -E); also err_matches
#     skip "name" REASON            a test point that cannot run here
#     skip_all REASON               this whole file; ends it
#     need_service NAME COMMAND     skip_all unless COMMAND is there; fails if REFUGE_TEST_REQUIRE names it
#     wait_for SECONDS WHAT command...   polls until the command succeeds; fails saying what was awaited
#     background command...         starts it; its pid is in $pid
#
# No test asserts a time. Waiting has a deadline and says what for.

set -u
LC_ALL=C.UTF-8
export LC_ALL
unset CDPATH

here=$(cd "$(dirname "$0")" && pwd)
source_dir=${REFUGE_SOURCE:-$(cd "$here/../.." && pwd)}
REFUGE=${REFUGE:-$source_dir/build/dev/bin/refuge}
case $REFUGE in /*) ;; *) REFUGE=$PWD/$REFUGE ;; esac
REFUGE_MAPPER=${REFUGE_MAPPER:-$(dirname "$REFUGE")/refuge-mapper}
export REFUGE REFUGE_MAPPER

# Sanitizers speak through the exit status; a leak in a program that was killed is no news.
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:allocator_may_return_null=1}
UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS

tap_count=0
tap_failed=0
children=""
pid=""
status=0

tmp=$(mktemp -d "${TMPDIR:-/tmp}/refuge-e2e.XXXXXX") || exit 1
REFUGE_HOME=$tmp/home
export REFUGE_HOME
unset XDG_DATA_HOME XDG_RUNTIME_DIR REFUGE_WITHOUT
# A control: without this safeguard the test must fail.
[ -z "${REFUGE_TEST_WITHOUT:-}" ] || { REFUGE_WITHOUT=$REFUGE_TEST_WITHOUT && export REFUGE_WITHOUT; }
out=$tmp/.out
err=$tmp/.err
: >"$out"
: >"$err"

cleanup()
{
    code=$?
    trap - EXIT INT TERM HUP
    for child in $children; do
        kill -9 "$child" 2>/dev/null && wait "$child" 2>/dev/null
    done
    if [ -n "${REFUGE_TEST_KEEP:-}" ]; then
        echo "# kept $tmp"
    else
        chmod -R u+rwX "$tmp" 2>/dev/null
        rm -rf "$tmp"
    fi
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# refuge ARGUMENTS: the program under test.
refuge()
{
    "$REFUGE" "$@"
}

note()
{
    printf '%s\n' "$*" | sed 's/^/# /'
}

pass()
{
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s\n' "$tap_count" "$1"
}

# fail NAME [WORDS...]: each word becomes a line of explanation.
fail()
{
    tap_count=$((tap_count + 1))
    tap_failed=$((tap_failed + 1))
    printf 'not ok %d - %s\n' "$tap_count" "$1"
    shift
    for line in "$@"; do
        note "$line"
    done
    [ -z "${REFUGE_TEST_WITHOUT:-}" ] || done_testing # a control asks for no more than one
}

# What the last run said, for a failed point.
last_run()
{
    note "status $status"
    head -c 2000 "$out" | sed 's/^/# out: /'
    head -c 2000 "$err" | sed 's/^/# err: /'
}

run()
{
    "$@" >"$out" 2>"$err"
    status=$?
    return 0
}

ok()
{
    ok_name=$1
    shift
    if "$@"; then
        pass "$ok_name"
    else
        fail "$ok_name" "failed: $*"
    fi
}

is()
{
    if [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "got:  $2" "want: $3"
    fi
}

status_is()
{
    if [ "$status" -eq "$2" ]; then
        pass "$1"
    else
        fail "$1" "want status $2"
        last_run
    fi
}

out_is()
{
    if [ "$(cat "$out")" = "$2" ]; then
        pass "$1"
    else
        fail "$1" "want on stdout: $2"
        last_run
    fi
}

# file_has NAME WANTED(0|1) FILE grep-options... PATTERN
file_has()
{
    has_name=$1
    has_want=$2
    has_file=$3
    shift 3
    has_got=1
    grep -q "$@" "$has_file" && has_got=0
    if [ $has_got -eq "$has_want" ]; then
        pass "$has_name"
    else
        fail "$has_name" "pattern: $*"
        last_run
    fi
}

out_has() { file_has "$1" 0 "$out" -F -e "$2"; }
out_lacks() { file_has "$1" 1 "$out" -F -e "$2"; }
err_has() { file_has "$1" 0 "$err" -F -e "$2"; }
err_lacks() { file_has "$1" 1 "$err" -F -e "$2"; }
out_matches() { file_has "$1" 0 "$out" -E -e "$2"; }
err_matches() { file_has "$1" 0 "$err" -E -e "$2"; }

skip()
{
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2"
}

skip_all()
{
    printf '1..0 # SKIP %s\n' "$1"
    exit 0
}

need_service()
{
    command -v "$2" >/dev/null 2>&1 && return 0
    case " ${REFUGE_TEST_REQUIRE:-} " in
    *" $1 "*)
        fail "service $1" "$2 is not installed and REFUGE_TEST_REQUIRE names $1"
        done_testing
        ;;
    esac
    skip_all "$2 is not installed"
}

wait_for()
{
    wait_left=$(($1 * 20))
    wait_what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        wait_left=$((wait_left - 1))
        if [ "$wait_left" -le 0 ]; then
            fail "wait for $wait_what" "still not so: $*"
            return 1
        fi
        sleep 0.05
    done
    return 0
}

background()
{
    "$@" >"$tmp/.background.out" 2>"$tmp/.background.err" &
    pid=$!
    children="$children $pid"
}

# sha FILE: the blobref of its bytes, computed by coreutils.
sha()
{
    printf 'sha256-%s' "$(sha256sum <"$1" | cut -c1-64)"
}

# query DATABASE SQL: asks the file directly, without refuge.
query()
{
    python3 - "$1" "$2" <<'PYTHON'
import sqlite3, sys
for row in sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True).execute(sys.argv[2]):
    print("|".join("" if cell is None else str(cell) for cell in row))
PYTHON
}

done_testing()
{
    printf '1..%d\n' "$tap_count"
    [ "$tap_failed" -eq 0 ] || exit 1
    exit 0
}

[ -x "$REFUGE" ] || {
    fail "the program is built" "no $REFUGE: cmake --workflow --preset dev, or set REFUGE"
    done_testing
}
