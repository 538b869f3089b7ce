# Part of /init. A new version that is on trial leaves a sign of how far it came, and where the boot loader cannot count, its starts are
# counted here: with none left, the firmware is sent back to the other slot. ppsd/appliance/slots.py writes and reads these files.
trial() {  # trial BOOTCFG SLOT DATA: directories where bootcfg (read-only) and data are mounted, and the slot that was started
    if [ -f "$3/update/trial" ] && grep -qxF "refclock.slot=$2" "$3/update/trial"; then echo kernel >"$3/update/reached"; fi
    [ -f "$1/trial.txt" ] || return 0
    slot='' back='' left='' back_partition=''
    while IFS='=' read -r key value; do
        case $key in slot) slot=$value ;; back) back=$value ;; left) left=$value ;; back_partition) back_partition=$value ;; esac
    done <"$1/trial.txt"
    [ "$slot" = "$2" ] || return 0
    mount -o remount,rw "$1" || return 0
    case $left in
    [1-9])
        printf 'slot=%s\nback=%s\nleft=%s\nback_partition=%s\n' "$slot" "$back" $((left - 1)) "$back_partition" >"$1/trial.new"
        sync && mv "$1/trial.new" "$1/trial.txt" && sync
        mount -o remount,ro "$1" ;;
    *)
        echo "refclock: slot $slot has not answered, back to slot $back"
        printf '[all]\nboot_partition=%s\n' "$back_partition" >"$1/autoboot.new"
        sync && mv "$1/autoboot.new" "$1/autoboot.txt" && sync
        mount -o remount,ro "$1"
        reboot -f ;;
    esac
}
