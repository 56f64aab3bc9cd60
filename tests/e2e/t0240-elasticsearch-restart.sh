#!/bin/sh
# t0240-elasticsearch-restart.sh - the search engine dies in the middle and comes back: nothing is lost
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_OPENSEARCH:-}" ] || skip_all "REFUGE_TEST_OPENSEARCH names no server"
service=$source_dir/tests/services/opensearch
node=$tmp/node
"$service" install "$node" >"$tmp/service.log" 2>&1 || skip_all "a node of its own cannot be installed"
stop_node()
{
    "$service" kill "$node"
    cleanup
}
trap stop_node EXIT
cd "$tmp" || exit 1
url=$("$service" start "$node" | sed 's/.*=//')
ok "a node of its own starts" [ -n "$url" ]

refuge init -q >/dev/null
printf '{"title":"before"}\n' >before.json
refuge put before.json >/dev/null 2>&1
run refuge index create es --sink "opensearch+$url#restart"
status_is "an index is made" 0
background "$REFUGE" index run es --follow
wait_for 60 "what was put before to be found" sh -c \
    "'$REFUGE' search --index es before 2>/dev/null | grep -q before.json"

"$service" kill "$node"
printf '{"title":"during"}\n' >during.json
refuge put during.json >/dev/null 2>&1
run refuge search --index es before
status_is "a search meets nobody" 75
wait_for 60 "the follower to say that it waits" grep -q "trying again" "$tmp/.background.err"
ok "the follower is still there" kill -0 "$pid"

"$service" start "$node" >/dev/null
wait_for 120 "what was put meanwhile to be found" sh -c \
    "'$REFUGE' search --index es during 2>/dev/null | grep -q during.json"
pass "it goes on when the node is back"
kill "$pid"
wait "$pid" 2>/dev/null
refuge index run main -q >/dev/null 2>&1
is "and nothing is lost or doubled" "$(refuge index digest es | cut -c 1-64)" \
    "$(refuge index digest main | cut -c 1-64)"
done_testing
