# Enters the file system of a container as an engine does with a read-only root, no capabilities and
# no new privileges. The command becomes process 1 of its namespaces.
set -e
root=$1 name=$2 hosts=$3 uid=$4 gid=$5 writable=$6; shift 6
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for folder in $writable; do
  case $folder in
    *:*) mount --bind "${folder%%:*}" "$root${folder#*:}" ;;
    *) mount -t tmpfs -o mode=1777 tmpfs "$root$folder" ;;
  esac
done
mount --bind "$hosts" "$root/etc/hosts"
mount -o remount,ro,bind "$root"
hostname "$name"
exec chroot "$root" setpriv --reuid "$uid" --regid "$gid" --clear-groups \
  --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
