# Part of /init. A new version that is on trial leaves a sign of how far it came (reached), and where the boot loader cannot count, its
# starts are counted here (trial): with none left, the firmware is sent back to the other slot. ppsd/appliance/slots.py writes and reads
# these files.
put_in_place() {  # put_in_place NAME: NAME.new becomes NAME.txt. As long as the old one is open its clusters are not free (boot.py: replace).
    sync
    { mv "$1.new" "$1.txt" && sync; } 3<>"$1.txt"
}

trial() {  # trial BOOTCFG SLOT: the directory where bootcfg is mounted read-only, and the slot that was started. Before anything can fail.
    [ -f "$1/trial.txt" ] || return 0
    slot_='' back='' left='' back_partition=''
    while IFS='=' read -r key value; do
        case $key in slot) slot_=$value ;; back) back=$value ;; left) left=$value ;; back_partition) back_partition=$value ;; esac
    done <"$1/trial.txt"
    [ "$slot_" = "$2" ] || return 0
    mount -o remount,rw "$1" || return 0
    case $left in
    [1-9])
        printf 'slot=%s\nback=%s\nleft=%s\nback_partition=%s\n' "$2" "$back" $((left - 1)) "$back_partition" >"$1/trial.new"
        put_in_place "$1/trial"
        mount -o remount,ro "$1" ;;
    *)
        echo "refclock: slot $2 has not answered, back to slot $back"
        printf '[all]\nboot_partition=%s\n' "$back_partition" >"$1/autoboot.new"
        put_in_place "$1/autoboot"
        mount -o remount,ro "$1"
        reboot -f ;;
    esac
}

reached() {  # reached DATA SLOT: the directory where data is mounted
    if [ -f "$1/update/trial" ] && grep -qxF "refclock.slot=$2" "$1/update/trial"; then echo kernel >"$1/update/reached"; fi
}
