#!/bin/sh
# The first process of the guest: records scenarios of the testbench in different ways, and is interrupted. Its
# root is the host's, read only; /tmp/out is the folder that the host gave. Named on the kernel's command line:
# LAB_PYTHON, LAB_RUNS (split:bench,mremap:script), LAB_SIGNALS (TERM,INT,KILL), LAB_OPTIONS (--pages=512).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
mkdir /tmp/out /tmp/work
mount -t virtiofs out /tmp/out
cd "${0%/tests/lab/*}" || exit 1
export PYTHONPATH="$PWD"
cd /tmp/work || exit 1
TRACEFS=/sys/kernel/tracing
KSM=/sys/kernel/mm/ksm

traces() { # what a recording may leave behind
    grep -c ksm "$TRACEFS/dynamic_events"
    cat "$TRACEFS/trace_clock" "$TRACEFS/tracing_on" "$TRACEFS/set_event" "$TRACEFS/current_tracer"
    cat "$KSM/run" "$KSM/pages_to_scan" "$KSM/sleep_millisecs" "$KSM/smart_scan" "$KSM/advisor_mode"
    ls /tmp
}

replay() {
    "$LAB_PYTHON" -m replay "$@"
}

without() { # PATTERN COMMAND...: on a kernel whose tracefs does not say that it understands that
    sed "s/$1//" "$TRACEFS/README" > /tmp/work/README
    shift
    mount --bind /tmp/work/README "$TRACEFS/README"
    "$@"
    status=$?
    umount "$TRACEFS/README"
    return "$status"
}

run() { # WAY SCENARIO
    way=$1 capture=$2.dat
    bench="-m replay testbench $2 $(echo "$LAB_OPTIONS" | tr ',=' '  ')"
    # what is recorded keeps first which probes there are
    set -- sh -c 'cp /sys/kernel/tracing/dynamic_events "$0"; exec "$@"' "/tmp/out/$2.probes" "$LAB_PYTHON" $bench
    case $way in
    bench) "$LAB_PYTHON" $bench --record --events truth -o "$capture" > "/tmp/out/$scenario.txt" ;;
    record) replay record --events truth -o "$capture" -- "$@" ;;
    anon) replay record --events truth --anon -o "$capture" -- "$@" ;;
    perf) replay record --events truth --tool perf -o "$capture" -- "$@" ;;
    numbers) without '<argname>\[->field' replay record --events truth -o "$capture" -- "$@" ;;
    fprobes) without 'place: \[<module>:\]<symbol>' replay record --events truth -o "$capture" -- "$@" ;;
    script) dash "/tmp/out/$scenario.sh" "$@" ;;
    btf)
        replay record --events truth -o "$capture" --print --btf /sys/kernel/btf/vmlinux > record.sh
        dash record.sh "$@"
        ;;
    esac
}

uname -r > /tmp/out/release
# Older than every recording, and mergeable: its maps are to be in the captures.
"$LAB_PYTHON" -c 'import mmap, time
m = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_MERGEABLE)
print(flush=True)
time.sleep(1e6)' > /tmp/work/ready &
older=$!
until [ -s /tmp/work/ready ]; do
    sleep 1
done
sed "s/^/$older /" "/proc/$older/maps" > /tmp/out/older
traces > /tmp/out/before
for each in $(echo "$LAB_RUNS" | tr , ' '); do
    scenario=${each%:*}
    run "${each#*:}" "$scenario" 2> "/tmp/out/$scenario.stderr"
    echo "$?" > "/tmp/out/$scenario.status"
    cp "$scenario.dat" /tmp/out/
    rm -f "$scenario.dat"
    traces > "/tmp/out/$scenario.after"
done
for signal in $(echo "$LAB_SIGNALS" | tr , ' '); do
    # Not by the function: in the background that would be a shell of its own, and take the signal.
    "$LAB_PYTHON" -m replay record --force -o interrupted.dat -- \
        "$LAB_PYTHON" -m replay testbench split --pages 20000 --timeout 1000 2> "/tmp/out/$signal.stderr" &
    until grep -q '^20000$' "$KSM/pages_to_scan"; do
        sleep 1
    done
    kill "-$signal" $!
    wait $!
    echo "$?" > "/tmp/out/$signal.status"
    tries=0 # after a SIGKILL of replay its script takes away what is set up, a moment later
    until [ "$(traces)" = "$(cat /tmp/out/before)" ] || [ "$tries" = 60 ]; do
        tries=$((tries + 1))
        sleep 1
    done
    traces > "/tmp/out/$signal.after"
done
echo o > /proc/sysrq-trigger
sleep 60
