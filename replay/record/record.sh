#!/bin/sh
#@ made
#
# Records the rmap walks of KSM pages, and what they walk over, on the machine where it runs. Needs root.
# Everything it sets up it takes away again, also when it is interrupted.
#
#     sh record.sh [COMMAND [ARGUMENT]...]   record while COMMAND runs; else until Ctrl-C
#     sh record.sh --clean                   take away what a killed recording left
#
# In the environment: FORCE=1 replaces a capture; BUFFER_MIB, of each CPU.
# Exits with the status of COMMAND; 125: nothing was recorded, or not all; 130: interrupted.
set -fu
TRACEFS=${TRACEFS:-/sys/kernel/tracing}
PROC=${PROC:-/proc}
#@ settings

fail() { # WHAT WHERE HINT
    printf 'replay: %s\n  %s\n  %s\n' "$1" "$2" "$3" >&2
    exit 125
}

say() {
    printf 'replay: %s\n' "$1" >&2
}

# ---- what is set up, and how it is taken away ----

WORK='' RECORDER='' COMMAND='' INTERRUPTED='' STATE=''

remove_probes() {
    for each in ksmprobe ksmtruth; do # one that is recorded cannot be removed
        [ ! -e "$TRACEFS/events/$each/enable" ] || echo 0 > "$TRACEFS/events/$each/enable"
    done
    # For each event of ours that dynamic_events lists. Never open it with >: that removes everybody's.
    ours=$(sed -n 's,^[a-z0-9]*:\(ksm[a-z]*/[^ ]*\).*,\1,p' "$TRACEFS/dynamic_events" | grep -E '^ksm(probe|truth)/')
    for each in $ours; do
        printf -- '-:%s\n' "$each" >> "$TRACEFS/dynamic_events" ||
            say "cannot remove the probe $each: try again with --clean"
    done
}

clean_up() {
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    [ -z "$COMMAND" ] || kill -TERM "$COMMAND" 2> /dev/null
    [ -z "$RECORDER" ] || stop_recorder
    if [ -n "$STATE" ]; then
        # Only what differs: to write a clock or a size empties the buffer.
        [ "$(current_clock)" = "$OLD_CLOCK" ] || printf '%s' "$OLD_CLOCK" > "$TRACEFS/trace_clock"
        [ "$(current_size)" = "$OLD_SIZE" ] || printf '%s' "$OLD_SIZE" > "$TRACEFS/buffer_size_kb"
        printf '%s' "$OLD_ON" > "$TRACEFS/tracing_on"
    fi
    remove_probes
    rm -rf "$WORK"
    exit "$status"
}

interrupt() {
    INTERRUPTED=1
    [ -z "$COMMAND" ] || end_command
}

end_command() { # twice: between its fork and its exec the shell's own handler takes the signal
    kill -TERM "$COMMAND" 2> /dev/null
    { sleep 1 && kill -TERM "$COMMAND"; } < /dev/null > /dev/null 2>&1 3<&- &
}

current_clock() {
    sed 's/.*\[\(.*\)\].*/\1/' "$TRACEFS/trace_clock"
}

current_size() { # "7 (expanded: 1408)" is a buffer that nobody used yet
    sed 's/.*expanded: \([0-9]*\).*/\1/' "$TRACEFS/buffer_size_kb"
}

# ---- what this kernel has ----

check_machine() {
    [ -d "$TRACEFS" ] && [ -e "$TRACEFS/dynamic_events" ] || fail "no tracefs, or a kernel without dynamic_events" \
        "$TRACEFS" "as root: mount -t tracefs nodev $TRACEFS"
    [ -w "$TRACEFS/dynamic_events" ] || fail "no permission to trace" "$TRACEFS/dynamic_events" \
        "run it as root; if you are root, the kernel is locked down (/sys/kernel/security/lockdown)"
    command -v "$TOOL" > /dev/null || fail "$TOOL is not installed" "PATH=$PATH" \
        "install it (Debian: trace-cmd, linux-perf), or choose the other with --tool"
    [ -d "$(dirname "$OUTPUT")" ] || fail "no such folder to write into" "$OUTPUT" "make it, or give another file"
    [ ! -e "$OUTPUT" ] || [ -n "$FORCE" ] || fail "will not overwrite without --force: $OUTPUT" "$OUTPUT" \
        "give another file with -o, or --force (FORCE=1) to replace this one"
    if [ -d "$TRACEFS/events/ksmprobe" ] || [ -d "$TRACEFS/events/ksmtruth" ]; then
        fail "there are probes already: another recording runs, or was killed" "$TRACEFS/events/ksmprobe" \
            "if none runs, take them away with: replay record --clean (or: sh record.sh --clean)"
    fi
    if [ "$TOOL" = trace-cmd ]; then
        [ "$(cat "$TRACEFS/current_tracer")" = nop ] && [ -z "$(cat "$TRACEFS/set_event")" ] ||
            fail "somebody is tracing already" "$TRACEFS/set_event, current_tracer" \
                "end that first (trace-cmd reset), or record with --tool perf"
    fi
}

find_symbols() {
    SYMBOLS=" $(grep -E " [tT] ($FUNCTIONS)\$" "$PROC/kallsyms" | sed 's/.* //' | tr '\n' ' ')"
}

probe() { # needed|optional FUNCTION DEFINITION
    case "$SYMBOLS" in
    *" $2 "*) ;;
    *)
        [ "$1" = needed ] && fail "this kernel has no function $2" "$PROC/kallsyms" \
            "it was inlined or renamed; record with --events stock, which needs no probes"
        say "no function $2 in this kernel: goes without it"
        return
        ;;
    esac
    define "$3" && return
    case "$3" in
    f[0-9]*) define "f:${3#*:}" && return ;; # newer fprobes take no number of returns to keep, and keep them all
    esac
    [ "$1" = needed ] && fail "the kernel refuses a probe: $(tail -n 1 "$WORK/error")" "$3" \
        "$(why "$3")"
    say "the kernel refuses the probe on $2: goes without it"
}

define() { # DEFINITION
    printf '%s\n' "$1" 2> "$WORK/error" >> "$TRACEFS/dynamic_events"
}

why() { # DEFINITION
    if [ "${1#f}" = "$1" ] && ! grep -q -F 'place: [<module>:]<symbol>' "$TRACEFS/README"; then
        printf 'this kernel has no kprobes (CONFIG_KPROBE_EVENTS): record with --events stock; if it has fprobes, with replay itself'
    elif grep -q -F 'argname>[->field' "$TRACEFS/README"; then
        printf 'see the end of %s' "$TRACEFS/error_log"
    else
        printf 'this kernel takes no arguments by name: make the script with --btf FILE, FILE being its /sys/kernel/btf/vmlinux'
    fi
}

EVENTS=''
event() { # SYSTEM:PATTERN...
    for each; do
        set +f
        set -- "$TRACEFS"/events/"${each%%:*}"/${each#*:}/ # the slash: folders only
        set -f
        if [ -d "$1" ]; then
            EVENTS="$EVENTS -e $each"
            LAST=${1}enable
        else
            say "no event $each in this kernel: goes without it"
        fi
    done
}

# ---- the recording ----

define_probes() {
    #@ probes
}

choose_events() {
    #@ events
}

buffer_kb() { # of each CPU: as asked for, but of all together no more than a quarter of the free memory
    awk -v asked="$BUFFER_MIB" -v cpus="$(grep -c '^processor' "$PROC/cpuinfo")" '
        $1 == "MemAvailable:" { most = int($2 / 4 / (cpus ? cpus : 1)) }
        END { kb = asked * 1024; print (kb < most ? kb : most) }' "$PROC/meminfo"
}

buffer_pages() { # perf takes a power of two
    awk -v kb="$(buffer_kb)" 'BEGIN { for (pages = 1; pages * 8 <= kb; pages *= 2) {} print pages }'
}

start_recorder() {
    # Killed with SIGKILL, this script cannot end it; what it leaves is removed by --clean.
    dies_with_us=''
    ! setpriv --pdeathsig INT true 2> /dev/null || dies_with_us='setpriv --pdeathsig INT'
    if [ "$TOOL" = trace-cmd ]; then
        OLD_CLOCK=$(current_clock) OLD_SIZE=$(current_size) OLD_ON=$(cat "$TRACEFS/tracing_on") STATE=saved
        $dies_with_us trace-cmd record -o "$OUTPUT" -C mono -b "$(buffer_kb)" $EVENTS > "$WORK/log" 2>&1 < /dev/null 3<&- &
        RECORDER=$!
        until [ "$(cat "$LAST")" = 1 ] && [ "$(cat "$TRACEFS/tracing_on")" = 1 ]; do
            recorder_lives
            sleep 0.1
        done
    else
        mkfifo "$WORK/control" "$WORK/answer"
        $dies_with_us perf record -o "$OUTPUT" -a -d -B -k mono -m "$(buffer_pages)" -D -1 \
            --control "fifo:$WORK/control,$WORK/answer" $EVENTS > "$WORK/log" 2>&1 < /dev/null 3<&- &
        RECORDER=$!
        # perf opens both at its start; opened for both directions here, so that this does not wait for it
        exec 4<> "$WORK/control" 5<> "$WORK/answer"
        printf 'enable\n' >&4
        until timeout 1 head -c 1 <&5 > /dev/null; do
            recorder_lives
        done
    fi
}

recorder_lives() { # an interrupt waits for it: before it listens to signals it cannot be ended in order
    kill -0 "$RECORDER" 2> /dev/null && return
    RECORDER=''
    fail "$TOOL ended before it recorded" "$(tail -n 3 "$WORK/log" | tr '\n' ' ')" "the last lines that it printed are above"
}

stop_recorder() {
    kill -INT "$RECORDER" 2> /dev/null
    wait "$RECORDER"
    ended=$?
    RECORDER=''
    case $ended in
    0 | 130) # perf ends itself with the signal that it was sent
        ! grep -q -E 'overrun: [1-9]|[1-9][0-9]* events lost|lost [1-9][0-9]* chunks' "$WORK/log" ||
            say "the buffer lost events: record again with BUFFER_MIB=$((BUFFER_MIB * 4)) (--buffer), or less load"
        [ -s "$OUTPUT" ] && return
        ;;
    esac
    printf 'replay: %s\n  %s\n  %s\n' "$TOOL ended with status $ended" \
        "$(tail -n 3 "$WORK/log" | tr '\n' ' ')" "the last lines that it printed are above" >&2
    status=125
}

# Which VMAs the processes that KSM looks at have before anything is recorded of them: markers
# `maps PID LINE`, LINE as /proc/PID/maps has it. perf records such lines itself.
record_maps() {
    [ "$TOOL" = trace-cmd ] || return
    set +f
    for process in "$PROC"/[0-9]*; do
        set -f
        pid=${process##*/}
        # Where ksm_stat knows no ksm_mergeable (6.12), what KSM has not scanned yet shows in smaps only.
        grep -q -s -e '^ksm_rmap_items [1-9]' -e '^ksm_merge_any: yes' -e '^ksm_mergeable: yes' "$process/ksm_stat" ||
            { ! grep -q -s '^ksm_mergeable:' "$process/ksm_stat" && grep -q -s '^VmFlags:.* mg' "$process/smaps"; } ||
            continue
        while IFS= read -r line; do
            printf 'maps %s %s\n' "$pid" "$line" > "$TRACEFS/trace_marker"
        done < "$process/maps"
    done 2> /dev/null # a process may end meanwhile
    set -f
}

# ---- all of it ----

if [ "${1:-}" = --clean ]; then
    remove_probes
    exit
fi
#@ command
case $OUTPUT in
/*) ;;
*) OUTPUT=$PWD/$OUTPUT ;;
esac
IDLE=''
[ $# -gt 0 ] || IDLE=1
[ -z "$IDLE" ] || set -- sleep 2147483647
[ -z "$SECONDS_AT_MOST" ] || set -- timeout --foreground "$SECONDS_AT_MOST" "$@"
WORK=$(mktemp -d) || exit 125
exec 3<&0
trap clean_up EXIT
trap interrupt INT TERM HUP
check_machine
find_symbols
define_probes
choose_events
start_recorder
record_maps
say "recording into $OUTPUT${IDLE:+ until Ctrl-C}${SECONDS_AT_MOST:+, for at most $SECONDS_AT_MOST s}"
if [ -z "$INTERRUPTED" ]; then
    "$@" <&3 3<&- 4<&- 5<&- &
    COMMAND=$!
    [ -z "$INTERRUPTED" ] || end_command
    while :; do # a signal ends wait early
        wait "$COMMAND"
        status=$?
        kill -0 "$COMMAND" 2> /dev/null || break
    done
    COMMAND=''
    [ -z "$INTERRUPTED" ] || [ "$status" -le 128 ] || status=130 # of the signal, or of the wait that it ended
    [ -z "$IDLE" ] || status=0 # its end was the wish
    [ -z "$SECONDS_AT_MOST" ] || [ "$status" != 124 ] || status=0
else
    status=130
fi
exit "$status"
