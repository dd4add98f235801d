// Sets extended attributes, which busybox cannot: attribute set NAME VALUE FILE, attribute capability FILE.
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "set") == 0) {
        if (setxattr(argv[4], argv[2], argv[3], strlen(argv[3]), 0) == 0) return 0;
    } else if (argc == 3 && strcmp(argv[1], "capability") == 0) {
        struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
        data.data[0].permitted = 1 << CAP_NET_BIND_SERVICE;
        if (setxattr(argv[2], "security.capability", &data, XATTR_CAPS_SZ_2, 0) == 0) return 0;
    }
    perror(argv[argc - 1]);
    return 1;
}
