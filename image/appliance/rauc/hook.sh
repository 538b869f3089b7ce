#!/bin/sh
# Carried in an update. RAUC runs it after it has written the boot partition, mounted at $RAUC_SLOT_MOUNT_POINT: the kernel's command line
# gets the slot's name, and the owner's pins come along from the slot that runs.
set -eu
[ "$1" = slot-post-install ] || exit 0
case $RAUC_SLOT_NAME in boot.0) slot=a other=b ;; boot.1) slot=b other=a ;; *) exit 0 ;; esac
cd "$RAUC_SLOT_MOUNT_POINT"
if [ -f cmdline.txt ]; then
    sed "s/\.slot=[ab]/.slot=$slot/g" cmdline.txt >cmdline.new
    mv cmdline.new cmdline.txt
fi
running=$(mktemp -d)
if mount -r "/dev/disk/by-partlabel/boot_$other" "$running"; then
    if [ -f "$running/user.txt" ]; then cp "$running/user.txt" user.txt; fi
    umount "$running"
fi
rmdir "$running"
sync
