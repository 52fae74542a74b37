# SPDX-License-Identifier: MIT
# Starting gttd and a server with the bundled model, and asking it something.
# shellcheck shell=bash

MODEL=models/wordbook-22m
HOST=127.0.0.1
PORT=8006
QUESTION='What does the word candle mean?'

run_dir=
gttd_pid=
server_pid=

# Both programs stop on SIGTERM; the server first, so that it can give its leases back.
stop_all() {
    local pid
    trap - EXIT INT TERM
    for pid in $server_pid $gttd_pid; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "$run_dir" ] || rm -rf "$run_dir"
}

show_logs() {
    local log
    for log in "$run_dir"/*.log; do
        echo "--- $(basename "$log" .log)" >&2
        tail -n 20 "$log" >&2
    done
}

port_is_busy() {
    (exec 3<>"/dev/tcp/$HOST/$PORT") 2>/dev/null
}

# wait_until SECONDS PID COMMAND...: until the command succeeds, as long as the process lives.
wait_until() {
    local end=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@"; do
        if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $end ]; then
            return 1
        fi
        sleep 0.1
    done
}

is_healthy() {
    curl -fsS --max-time 5 "http://$HOST:$PORT/health" >"$run_dir/health.json" 2>/dev/null
}

# A string or number from one line of JSON that we wrote ourselves: json_value KEY FILE
json_value() {
    local text
    text=$(sed -nE 's/.*"'"$1"'": ?("(([^"\\]|\\.)*)"|[-0-9.eE]+).*/\1/p' "$2" | head -n 1)
    text=${text#\"}
    text=${text%\"}
    text=${text//\\\"/\"}
    text=${text//\\n/$'\n'}
    printf '%s' "${text//\\\\/\\}"
}

mebibytes() {
    awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'
}

start_gttd() {
    build/release/bin/gttd --socket="$run_dir/gttd.sock" >"$run_dir/gttd.log" 2>&1 &
    gttd_pid=$!
    wait_until 10 "$gttd_pid" test -S "$run_dir/gttd.sock" || {
        show_logs
        die "gttd did not start"
    }
}

start_server() {
    GTTD_SOCKET=$run_dir/gttd.sock build/release/bin/gttrun serve -m "$MODEL" \
        --listen "$HOST:$PORT" >"$run_dir/gttrun.log" 2>&1 &
    server_pid=$!
    wait_until 120 "$server_pid" is_healthy || {
        show_logs
        die "gttrun serve did not start"
    }
}

ask() {
    local reply=$run_dir/reply.json
    curl -fsS --max-time 300 "http://$HOST:$PORT/v1/chat/completions" \
        -H 'Content-Type: application/json' \
        -d '{"messages": [{"role": "user", "content": "'"$QUESTION"'"}], "temperature": 0, "max_tokens": 100}' \
        >"$reply" || {
        show_logs
        die "the server did not answer"
    }
    echo
    echo "  $QUESTION"
    echo "  > $(json_value content "$reply")"
    echo
    [ -n "$(json_value content "$reply")" ] || die "the answer is empty: $(cat "$reply")"
    echo "  weights   $(mebibytes "$(json_value bytes "$run_dir/health.json")")," \
        "$(json_value source "$run_dir/health.json") (memory: $(json_value memory "$run_dir/health.json"))"
    echo "  held by   gttd, $(sed -nE 's/.*(heap [a-z]+).*/\1/p' "$run_dir/gttd.log" | head -n 1)," \
        "process $gttd_pid: one of our own, on $run_dir/gttd.sock"
    echo "  backend   $(json_value backend "$run_dir/health.json") on $(json_value device "$run_dir/health.json")"
    printf '  speed     first token after %.0f ms, then %.0f tokens/s\n' \
        "$(json_value first_token_ms "$reply")" "$(json_value decode_tps "$reply")"
    echo
}

run_model() {
    local once=$1
    build release gttd gttrun
    [ -e "$MODEL/config.json" ] || die "$MODEL: the bundled model is not there"
    if port_is_busy; then
        die "port $PORT on $HOST is busy: stop what listens there"
    fi
    run_dir=$(mktemp -d "${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}/gttd-dev.XXXXXX")
    trap stop_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    start_gttd
    start_server
    ask
    if [ -z "$once" ]; then
        echo "Serving on http://$HOST:$PORT (OpenAI API; logs in $run_dir). Ctrl-C stops it."
        trap 'exit 0' INT TERM
        wait "$server_pid" || {
            show_logs
            die "gttrun serve ended"
        }
    fi
}
