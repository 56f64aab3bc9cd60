#!/bin/sh
# put, get, ls, stat, delete, store verify, info, compact: what goes in comes out, and is gone when
# it was deleted.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

printf 'hello\n' >hello
run refuge put - <hello
status_is "put -" 0
out_is "prints the blobref that coreutils compute" "$(sha hello)  -"
ref=$(sha hello)
run refuge get "$ref"
out_is "get gives the bytes" "hello"
run refuge get "$(printf %.16s "$ref")"
out_is "by the beginning of its ref" "hello"
run refuge put - <hello
status_is "put again" 0
run refuge stat "$ref"
out_has "one life" "6 bytes"
run refuge put - </dev/null
out_is "an empty blob has a ref too" "$(sha /dev/null)  -"
run refuge get "$(sha /dev/null)"
out_is "and comes out empty" ""

run refuge put - x - </dev/null
status_is "standard input twice" 2
err_has "is refused" "standard input, which can be read once"

head -c 3000000 /dev/urandom >large
run refuge put - <large
out_is "a blob larger than a record" "$(sha large)  -"
ok "comes out whole" sh -c "'$REFUGE' get $(sha large) | cmp - large"

printf '{"name":"x"}' >x.json
run refuge put x.json
status_is "put FILE" 0
out_matches "prints ref and name" '^sha256-[0-9a-f]{64}  x.json$'
file=$(cut -d' ' -f1 "$out")
run refuge get "$file"
out_is "get gives the file's content" '{"name":"x"}'
run refuge get --raw "$file"
out_has "get --raw the file blob" '{"!refuge":"'
run refuge get -o copy "$file"
ok "get -o writes a file" cmp -s copy x.json
chmod 600 copy
refuge get -q -o copy "$file"
is "a file that is replaced keeps its mode" "$(stat -c %a copy)" 600
ln -s copy link
refuge get -q -o link "$file"
ok "get -o writes where a symlink leads" test -L link
mkfifo pipe
cat pipe >through &
reader=$!
run refuge get -o pipe "$file"
wait "$reader"
ok "get -o writes through a pipe" cmp -s through x.json
ok "which is one still" test -p pipe
run refuge get -o /dev/full "$file"
status_is "a device that takes nothing" 1
ok "is one still" test -c /dev/full
run refuge get -o . "$file"
err_has "a folder is no file" "it is a folder"
rm -f link pipe through
run refuge get -o missing "sha256-$(printf '%064d' 0)"
status_is "a blob that is not there" 1
ok "leaves no file" test ! -e missing
is "nor a part of one" "$(find . -name 'missing*' | wc -l)" 0
run refuge stat "$file"
out_has "stat names the file" "x.json"
run refuge stat --json "$file"
out_has "as JSON" '"kind":"file","name":"x.json","content_size":12'

head -c 9000000 /dev/urandom >chunks
run refuge put chunks
many=$(cut -d' ' -f1 "$out")
run refuge get -o chunks.back "$many"
ok "a file cut into chunks comes out whole" cmp -s chunks chunks.back

mkdir -p tree/b tree/a
i=0
while [ $i -lt 300 ]; do
    printf '{"i":%d}' $i >"tree/a/$i.json"
    i=$((i + 1))
done
echo text >tree/b/note.txt
ln -s note.txt tree/b/link
ln -s nowhere.txt tree/b/dangling.txt
ln -s . tree/b/loop
mkfifo tree/b/pipe
run refuge put --dry-run --json tree
status_is "put --dry-run FOLDER" 0
out_has "nothing of it is there" '"files":301,"present":0'
run refuge put --json tree
status_is "put FOLDER" 0
is "stores every regular file" "$(grep -c '"type":"item"' "$out")" 301
out_has "says so" '"files":301'
out_has "and leaves out what is none" '"skipped_symlinks":3,"skipped_fifos":1'
out_has "all counted" '"skipped":4,"errors":0'
err_has "and named" "skipped 3 symlinks, 1 fifo"
run refuge put --match '*.txt' tree
is "--match takes some" "$(wc -l <"$out")" 1
out_has "that match" "tree/b/note.txt"
err_has "of what is skipped too" "skipped 1 symlink: "
run refuge put --match '*.none' tree
status_is "a folder without a file that matches, and nothing else: status 1" 1
err_has "is named" "no file of 'tree' matches"
run refuge put --match '*.none' tree tree/b/note.txt
status_is "beside a file that is stored: status 0" 0
err_has "it is named, too" "no file of 'tree' matches"
for glob in '[' '*.[a' '[[:alpha:]' '[]' 'a\'; do
    run refuge put --match "$glob" tree
    status_is "--match $glob is no glob" 2
done
run refuge put --match '[[:alpha:]]*.t[]x]t' --match '\[' tree
is "brackets that end are" "$(wc -l <"$out")" 1
mkdir -p order/a/b order/a-b
for name in order/a/b/z order/a/c order/a-b/y order/b order/A; do echo "$name" >"$name"; done
run refuge put -n order/
is "files come in order of their names, a folder where its name stands" \
    "$(awk '{print $2}' "$out" | tr '\n' ' ')" "order/A order/a/b/z order/a/c order/a-b/y order/b "
ln -s tree folder
run refuge put --json folder
out_has "a link to a folder is that folder" '"files":301,"present":301'
run refuge put tree
ls tree/a | sort | sed 's|^|tree/a/|' >want
sed 's/^[^ ]*  //' "$out" | grep '^tree/a' >got
ok "in sorted order" cmp -s want got
err_has "all there already" "301 were there already"
printf new >tree/new.txt
n=$(refuge changes | wc -l)
run refuge put --dry-run tree x.json
status_is "put --dry-run" 0
err_has "counts what is there and what is not" \
    "would put 303 files, $(cat tree/*/*.json tree/*.txt tree/b/note.txt x.json | wc -c | awk '
        {printf "%.1f KiB", $1 / 1024}'); 302 are there already, 3 B to store, 0 failed"
is "and says it of each" "$(grep -c '  (there already)$' "$out")" 302
out_matches "of what is not, its blobref" '^sha256-[0-9a-f]{64}  tree/new.txt$'
dry=$(grep 'tree/new.txt$' "$out")
run refuge put --dry-run --json x.json
out_has "as JSON" '"stored":0,"present":true'
run refuge put --dry-run - <hello
out_is "standard input is looked at as well" "$ref  -  (there already)"
is "nothing was stored" "$(refuge changes | wc -l)" "$n"
is "a put then gives the same blobref" "$(refuge put tree/new.txt)" "$dry"
run refuge put x.json nowhere.json large
status_is "a file that is not there" 1
err_has "is named" "nowhere.json"
is "the others are stored" "$(wc -l <"$out")" 2

run refuge ls
status_is "ls" 0
ok "is sorted" sort -c "$out"
n=$(wc -l <"$out")
run refuge ls --items
ok "--items leaves contents out" test "$(wc -l <"$out")" -lt "$n"
run refuge ls --prefix "$(printf %.12s "$ref")"
out_is "--prefix" "$ref"
run refuge ls --long --prefix "$ref"
out_matches "--long" "^$ref +6  [0-9T:.-]+Z  item$"
run refuge ls --limit 3
is "--limit" "$(wc -l <"$out")" 3
run sh -c "'$REFUGE' ls | head -1; exit 0"
is "a reader that leaves is no error" "$(cat "$err")" ""
run refuge ls --json --prefix "$ref"
out_has "as JSON" "\"ref\":\"$ref\",\"size\":6"
out_matches "with a summary" '"type":"summary".*"blobs":1'

run refuge store verify
status_is "store verify" 0
out_has "finds nothing" "0 corrupt, 0 missing"
run refuge store info --json
out_matches "store info" '"uuid":"[0-9a-f-]{36}"'
run refuge status
status_is "status" 0

# A large blob has a file of its own; when that is cut, its blob is named, and a put mends it.
head -c 1500000 /dev/zero >zeros
large=$(refuge put - <zeros | cut -d' ' -f1)
truncate -s 1000 "$REFUGE_HOME/store/home/large/$large-1"
run refuge store verify
status_is "store verify of a large blob that was cut" 1
out_has "names it" "blob $large is corrupt: the file of a large blob is too short"
refuge put - <zeros >/dev/null
run refuge store verify
status_is "it is mended by a put" 0

# Lost folders and files of the store, but the log: nothing is missing, and it is said.
refuge ls >ls.before
rm -r "$REFUGE_HOME/store/home/run"
run refuge ls
status_is "ls without the lookup's folder" 0
ok "lists everything" cmp -s ls.before "$out"
run refuge store verify
status_is "store verify without it" 0
out_has "tells of it" "'run' of the store is missing or damaged; nothing is lost"
run refuge doctor
out_matches "doctor says it is made again" "^warn +store +'run' of the store was .* made again"
run refuge doctor
out_lacks "once" "'run'"
printf x | dd of="$(find "$REFUGE_HOME/store/home/run" -type f)" bs=1 seek=100 conv=notrunc 2>/dev/null
run refuge store verify
status_is "store verify with a damaged lookup run" 0
out_has "names it" "1 lookup run damaged or missing: nothing is lost, made again by the next writer"
run refuge store verify --repair
out_matches "makes it again" "missing, 1 lookup run made again"
run refuge store verify
out_lacks "once" "lookup run"
rm "$REFUGE_HOME"/store/home/run/*
run refuge store verify
status_is "store verify without a lookup run" 0
out_matches "says what is in none" ", [1-9][0-9]* changes in no lookup run, which the next writer makes"
run refuge ls
ok "and lists everything" cmp -s ls.before "$out"
run refuge store verify --repair
run refuge store verify
out_lacks "which a writer made" "lookup run"
rm "$REFUGE_HOME/store/home/head" "$REFUGE_HOME/store/home/store.json"
run refuge store verify
status_is "store verify without head and store.json" 0
out_has "says they were made again" "'head' of the store was missing or damaged"
run refuge ls
ok "and nothing is missing" cmp -s ls.before "$out"
mv "$REFUGE_HOME/store/home/log" log.away
run refuge put x.json
status_is "without its log a store is not written" 1
err_has "and the log is said to be gone" "is gone"
rmdir "$REFUGE_HOME/store/home/log"
mv log.away "$REFUGE_HOME/store/home/log"

run refuge delete --dry-run "$ref"
status_is "delete --dry-run" 0
run refuge get "$ref"
out_is "deletes nothing" "hello"
run refuge delete "$ref"
status_is "delete" 0
out_is "prints what is gone" "$ref"
run refuge get "$ref"
status_is "it is gone" 1
err_has "and said so" "in this store"
run refuge delete "$ref"
status_is "deleting it again fails" 1
run refuge put - <hello
run refuge get "$ref"
out_is "put again, it is back" "hello"
run refuge delete abc
status_is "delete needs a whole blobref" 2

printf same >one.txt
printf same >two.txt
refuge put one.txt two.txt | cut -d' ' -f1 >refs
run refuge delete --content "$(sed -n 1p refs)"
is "delete --content keeps what another file holds" "$(wc -l <"$out")" 1
run refuge get "$(sed -n 2p refs)"
out_is "the other file is whole" "same"
run refuge delete --content "$(sed -n 2p refs)"
is "and deletes it with the last one" "$(wc -l <"$out")" 2
run refuge get "$(sha one.txt)"
status_is "the content is gone" 1

run refuge delete --content "$many"
run refuge delete "$(sha large)"
run refuge store compact
status_is "store compact" 0
run refuge store verify --repair
status_is "store verify --repair" 0
run refuge store verify
out_has "nothing is missing" "0 corrupt, 0 missing"

# Damage at the front of the log, which nothing trips over at once: doctor looks there.
cp -r "$REFUGE_HOME" "$tmp/hurt"
flip() # OFFSET: invert a byte of the oldest file of the log
{
    python3 - "$(find "$tmp/hurt/store/home/log" -type f | sort | head -n 1)" "$1" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 255]))
PYTHON
}
flip 20
run refuge --home "$tmp/hurt" doctor
status_is "doctor looks at the first record of the log" 1
out_matches "names it" '^fail +store +the begin record of segment 0000000000000001-'
out_has "and who looks for more" "'refuge store verify'"
flip 20
run refuge --home "$tmp/hurt" doctor
status_is "a sound log" 0
flip 204
run refuge --home "$tmp/hurt" doctor
status_is "and at the first changes" 1
out_matches "named as well" '^fail +store +change 1 of the log is damaged'

# Damage: one byte of a blob, on disk.
python3 - "$REFUGE_HOME/store/home" <<'PYTHON' || fail "damage"
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        data = open(path, "rb").read()
        if b"hello\n" in data:
            with open(path, "r+b") as file:
                file.write(data.replace(b"hello\n", b"jello\n"))
PYTHON
run refuge get "$ref"
status_is "a damaged blob is not given out" 1
err_matches "but reported" 'corrupt'
run refuge store verify
status_is "store verify finds it" 1
out_has "and names it" "$ref"

run refuge get zzz
status_is "no blobref: status 2" 2
err_has "is said to be none" "is no blobref"
run refuge stat zzz
status_is "stat of no blobref: status 2" 2
run refuge stat sha256-000000
status_is "stat of nothing" 1
run refuge get --json "$file"
status_is "get --json without --output" 2
run refuge get --json --output - "$file"
status_is "nor to standard output" 2
run refuge get --output - "$file"
out_is "which is written to without --json" '{"name":"x"}'

run refuge put /proc/version
status_is "a file without a size" 1
err_has "is not stored as an empty one" "holds more than the 0 bytes"
done_testing
