# Enters the file system of a container, as an engine with `--read-only --tmpfs /tmp` does.
# The command becomes process 1 of its namespaces.
set -e
root=$1 name=$2 hosts=$3 user=$4 writable=$5; shift 5
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for folder in $writable; do mount -t tmpfs -o mode=1777 tmpfs "$root$folder"; done
mount --bind "$hosts" "$root/etc/hosts"
mount -o remount,ro,bind "$root"
hostname "$name"
exec chroot --userspec="$user" "$root" "$@"
