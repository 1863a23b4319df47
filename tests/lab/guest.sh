#!/bin/sh
# The first process of the guest: records scenarios of the testbench, and is interrupted once. Its root is the
# host's, read only; /tmp/out is the folder that the host gave. Named on the kernel's command line: LAB_PYTHON,
# LAB_SCENARIOS (split,mremap), LAB_EVENTS (truth), LAB_PAGES.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
mkdir /tmp/out /tmp/work
mount -t virtiofs out /tmp/out
cd "${0%/tests/lab/*}" || exit 1
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

uname -r > /tmp/out/release
traces > /tmp/out/before
# The first scenario by replay itself, the others by the script that it prints, with arguments by number.
# The captures are analyzed by the host: an emulated CPU is not to be trusted with polars (QEMU 7.2 gets BMI wrong).
script=''
for scenario in $(echo "$LAB_SCENARIOS" | tr , ' '); do
    capture=/tmp/work/$scenario.dat
    set -- "$LAB_PYTHON" -m replay testbench "$scenario" --pages "$LAB_PAGES" --contents 8 --walks 2
    if [ -z "$script" ]; then
        replay record --events "$LAB_EVENTS" -o "$capture" -- "$@"
    else
        replay record --events "$LAB_EVENTS" -o "$capture" --print --btf /sys/kernel/btf/vmlinux > "$script"
        sh "$script" "$@"
    fi
    echo "$?" > "/tmp/out/$scenario.status"
    cp "$capture" /tmp/out/
    script=/tmp/work/record.sh
done
traces > /tmp/out/after
# Not by the function: in the background that would be a shell of its own, and take the signal.
"$LAB_PYTHON" -m replay record -o /tmp/work/interrupted.dat -- "$LAB_PYTHON" -m replay testbench split --pages 200000 --timeout 1000 &
until grep -q '^20000$' "$KSM/pages_to_scan"; do
    sleep 1
done
kill -TERM $!
wait $!
echo "$?" > /tmp/out/interrupted.status
traces > /tmp/out/after-interrupt
echo o > /proc/sysrq-trigger
sleep 60
