#!/bin/sh
# Who may write to a search engine: TLS and whom it trusts, passwords and API keys in files, a key that may
# only read, one that is taken back while an index follows.
. "$(dirname "$0")/lib.sh"

kind=opensearch
server=${REFUGE_TEST_OPENSEARCH:-}
[ -n "$server" ] || { kind=elasticsearch && server=${REFUGE_TEST_ELASTICSEARCH:-}; }
[ -n "$server" ] || skip_all "neither REFUGE_TEST_OPENSEARCH nor REFUGE_TEST_ELASTICSEARCH names a server"
command -v openssl >/dev/null || skip_all "openssl is not installed"
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
prefix=guarded-$$

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt \
    >/dev/null 2>&1 || fail "authority"
openssl req -newkey rsa:2048 -nodes -subj /CN=gateway -keyout server.key -out server.csr >/dev/null 2>&1
printf 'subjectAltName=IP:127.0.0.1\n' >names
openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names \
    -out server.crt >/dev/null 2>&1 || fail "certificate"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt \
    >/dev/null 2>&1
# The secrets, as their owners keep them and as the server knows them.
printf 'c2VjcmV0LWtleQ==\n' >key
printf 'b25seS1yZWFkcw==\n' >reads
printf 'bm8gc3VjaCBrZXk=\n' >nobodys
printf 'right horse\n' >pass
printf 'wrong horse\n' >wrong
chmod 600 key reads nobodys pass wrong
printf 'all ApiKey c2VjcmV0LWtleQ==\nread ApiKey b25seS1yZWFkcw==\nall Basic %s\n' \
    "$(printf 'keeper:right horse' | base64)" >keys
background "$source_dir/tests/services/gateway" --certificate server.crt --key server.key --keys keys \
    "$server"
said() { grep -q '^https' "$tmp/.background.out"; }
wait_for 30 "the gateway" said
gate=$(cat "$tmp/.background.out")
port=${gate##*:}

printf '{"title":"hello harbour"}\n' >one.json
refuge put one.json >/dev/null
try() { run refuge index create tried --sink "$kind+$1#$prefix"; }
try "$gate?apikeyfile=$tmp/key"
status_is "a certificate that nobody we know signed is not trusted" 12
err_has "and what names its signer is said" "cafile=PATH"
try "$gate?apikeyfile=$tmp/key&cafile=$tmp/other.crt"
status_is "nor one of another authority" 12
try "https://localhost:$port?apikeyfile=$tmp/key&cafile=$tmp/ca.crt"
status_is "nor one for another host" 12
try "$gate?apikeyfile=$tmp/key&cafile=$tmp/none.crt"
status_is "an authority's file that is not there" 12
err_has "is named" "none.crt"
try "http://127.0.0.1:$port"
ok "without TLS nobody comes in" [ "$status" -ne 0 ]
try "$gate?cafile=$tmp/ca.crt"
status_is "nor without a key" 12
err_has "and where to look is said" apikeyfile
try "$gate?apikeyfile=$tmp/nobodys&cafile=$tmp/ca.crt"
status_is "nor with one that is not known" 12
err_lacks "the key is not told" bm8gc3VjaCBrZXk
try "https://keeper@127.0.0.1:$port?passfile=$tmp/wrong&cafile=$tmp/ca.crt"
status_is "nor with a wrong password" 12
err_lacks "the password is not told" horse
try "$gate?apikeyfile=$tmp/reads&cafile=$tmp/ca.crt"
status_is "a key that may only read makes no index" 12
err_has "and the server's reason is said" unauthorized
is "nothing of all that is defined" "$(ls "$REFUGE_HOME/conf.d" 2>/dev/null)" ""

run refuge index create keyed --sink "$kind+$gate?apikeyfile=$tmp/key&cafile=$tmp/ca.crt#$prefix-k"
status_is "a key and an authority lead in" 0
run refuge index create named \
    --sink "$kind+https://keeper@127.0.0.1:$port?passfile=$tmp/pass&cafile=$tmp/ca.crt#$prefix-n"
status_is "so do a name and a password" 0
for index in keyed named; do
    run refuge index run "$index"
    status_is "$index: it runs" 0
    run refuge search --index "$index" harbour
    out_has "$index: and searches" one.json
    run refuge index verify "$index"
    status_is "$index: verify agrees" 0
done
for words in "index list" "index status keyed" "index status named" doctor "config show" \
    "--json index list"; do
    # shellcheck disable=SC2086 # the words of a command
    run refuge $words
    cat "$err" >>"$out"
    out_lacks "$words: no secret is shown" c2VjcmV0LWtleQ
    out_lacks "$words: nor the password" horse
done
ok "no secret is kept" sh -c "! grep -rq -e c2VjcmV0LWtleQ -e horse '$REFUGE_HOME'"

# A key is taken back while the index follows, and given again.
background "$REFUGE" index run keyed --follow
follower=$pid
printf '{"title":"second harbour"}\n' >two.json
refuge put two.json >/dev/null
wait_for 60 "the follower to take what came" refuge index wait keyed
cp keys all-keys
grep -v c2VjcmV0 all-keys >keys
printf '{"title":"third harbour"}\n' >three.json
refuge put three.json >/dev/null
wait "$follower"
status=$?
status_is "a key taken back ends the follower" 12
ok "it says that it is not let in" grep -q "does not let us in" "$tmp/.background.err"
cp all-keys keys
run refuge index run keyed
status_is "given again, a run goes on" 0
run refuge search --index keyed harbour
out_has "with what came meanwhile" three.json
run refuge index verify keyed
status_is "and nothing is lost" 0
for index in keyed named; do
    run refuge index drop "$index"
    status_is "$index: dropped" 0
done
is "nothing stays at the server" "$(curl -sS "$server/_cat/indices/$prefix-*?expand_wildcards=all")" ""

done_testing
