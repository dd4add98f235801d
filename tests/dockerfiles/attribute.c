// Sets extended attributes, which busybox cannot: attribute set NAME VALUE FILE, attribute capability FILE.
// attribute above: leaves its root as far as that can be done (chroot(2)), and says where it has come to.
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "set") == 0) {
        if (setxattr(argv[4], argv[2], argv[3], strlen(argv[3]), 0) == 0) return 0;
    } else if (argc == 3 && strcmp(argv[1], "capability") == 0) {
        struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
        data.data[0].permitted = 1 << CAP_NET_BIND_SERVICE;
        if (setxattr(argv[2], "security.capability", &data, XATTR_CAPS_SZ_2, 0) == 0) return 0;
    } else if (argc == 2 && strcmp(argv[1], "above") == 0) {
        mkdir("/below", 0700);
        if (chroot("/below") == 0) {
            for (int i = 0; i < 100; i++)
                if (chdir("..") != 0) return 1;
            return puts(access("bin/attribute", F_OK) == 0 ? "in its own root" : "elsewhere") < 0;
        }
    }
    perror(argv[argc - 1]);
    return 1;
}
