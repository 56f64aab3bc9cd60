#!/bin/sh
# A home that cannot be written: what reads works, what writes says so and ends with status 12.
#
# As root a read-only mount in a mount namespace of its own, else folders without write permission.
. "$(dirname "$0")/lib.sh"

mkdir "$tmp/scratch" "$tmp/small"
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
printf '[{"a":"one"},{"a":"two"}]' >a.json
refuge put a.json >/dev/null
refuge index run -q

# sealed COMMAND...: runs it while $REFUGE_HOME cannot be written; as root $tmp/small is a file
# system of 64 KiB.
if [ "$(id -u)" -eq 0 ]; then
    sealed()
    {
        unshare -m sh -c 'mount --bind "$REFUGE_HOME" "$REFUGE_HOME" &&
            mount -o remount,ro,bind "$REFUGE_HOME" &&
            mount -t tmpfs -o size=64k none "$0" && exec "$@"' "$tmp/small" "$@"
    }
    sealed true 2>/dev/null || skip_all "no mount namespaces here"
else
    chmod -R a-w "$REFUGE_HOME"
    sealed() { "$@"; }
fi

for words in "ls" "store verify" "changes" "status" "index status" "index errors" "search one" \
    "index why a.json" "mapper list" "doctor"; do
    # shellcheck disable=SC2086
    run sealed "$REFUGE" $words
    status_is "$words works" 0
done
run sealed "$REFUGE" sql --csv "select count(*) as n from record"
out_has "sql too" 2
run sealed "$REFUGE" doctor
out_matches "doctor says what is so" '^warn +home +.* cannot be written'

for words in "put a.json" "delete sha256-$(printf '%064d' 0)" "store compact" "index run" \
    "index rebuild" "index retry --all" "index pause" "index drop main" \
    "mapper new words"; do
    # shellcheck disable=SC2086
    run sealed "$REFUGE" $words
    status_is "$words: status 12" 12
    err_matches "because" 'Read-only file system|Permission denied'
done
run sealed "$REFUGE" init --home "$REFUGE_HOME/within"
status_is "init within it: status 12" 12

run sealed env TMPDIR="$tmp/scratch" "$REFUGE" index verify
status_is "index verify works elsewhere" 0
out_has "and compares" "0 differences"
is "and leaves nothing there" "$(find "$tmp/scratch" -mindepth 1 | wc -l)" 0
run sealed env TMPDIR="$tmp/nowhere" "$REFUGE" index verify
status_is "with nowhere to go: status 12" 12
err_has "it names what was tried" "$tmp/nowhere"
err_has "and what to set" "set TMPDIR"
if [ "$(id -u)" -eq 0 ]; then
    run sealed env TMPDIR="$tmp/small" "$REFUGE" index verify
    status_is "with too little room: status 1" 1
    err_has "it says so" "MiB free"
    # Moved to where nothing can be made beside it, an index is its database file alone.
    rm "$REFUGE_HOME"/index/main.db-wal "$REFUGE_HOME"/index/main.db-shm
    run sealed "$REFUGE" sql --csv "select count(*) as n from record"
    out_has "an index without the files of its log" 2
fi
chmod -R u+w "$REFUGE_HOME"
run refuge index verify
status_is "beside the index where it can be written" 0

# A full disk: what cannot be written whole is not there at all.
if [ "$(id -u)" -eq 0 ]; then
    run unshare -m sh -c 'mount -t tmpfs -o size=12m none "$0" && cd "$0" &&
        export REFUGE_HOME="$0/home" && "$REFUGE" init -q && printf "{\"a\":1}" >a.json &&
        "$REFUGE" put -q a.json && "$REFUGE" index run -q &&
        mkdir many && for i in 1 2 3; do head -c 900000 /dev/urandom >many/$i; done &&
        dd if=/dev/zero of=fill bs=4096 2>/dev/null
        "$REFUGE" index pause; echo "pause $?"; "$REFUGE" mapper new words; echo "new $?"
        "$REFUGE" put many; echo "put $?"
        ls -A home/index home/mappers' "$tmp/small"
    out_has "no room to pause" "pause 1"
    out_lacks "nothing is paused then" "main.paused"
    out_has "no room for a mapper" "new 1"
    out_lacks "nor half of one" "words.lua"
    out_has "no room for files" "put 1"
    err_has "it says that the rest was not tried" "what follows was not tried"

    # An index that filled the disk leaves its log there, and loses nothing.
    run unshare -m sh -c 'mount -t tmpfs -o size=24m none "$0" && cd "$0" &&
        export REFUGE_HOME="$0/home" && "$REFUGE" init -q && printf "{\"a\":1}" >a.json &&
        "$REFUGE" put -q a.json && "$REFUGE" index run -q &&
        seq -f "{\"n\": %.0f, \"text\": \"harbour and more words\"}" 70000 >many.jsonl &&
        "$REFUGE" put -q many.jsonl && rm many.jsonl
        "$REFUGE" index run -q; echo "full $?"
        echo "before $("$REFUGE" sql --csv "select count(*) from record" | tail -n 1)"
        mount -o remount,size=160m none "$0"
        "$REFUGE" index run -q; echo "again $?"
        echo "after $("$REFUGE" sql --csv "select count(*) from record" | tail -n 1)"
        echo "log $(wc -c <home/index/main.db-wal)"
        "$REFUGE" index verify -q; echo "verify $?"' "$tmp/small"
    out_has "an index that fills the disk fails" "full 1"
    err_has "for that reason" "no space left"
    out_has "what was committed is there" "before 1"
    out_has "with room it goes on" "again 0"
    out_has "has all of it" "after 140001"
    out_has "and empties its log" "log 0"
    out_has "the index is what it should be" "verify 0"
fi
done_testing
