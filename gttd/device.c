/* SPDX-License-Identifier: MIT */
/* Choosing a GPU: see device.h. */
#include "device.h"

#include <errno.h>
#include <string.h>

static int refuse(const struct device *device, struct reason *why)
{
    return reason_set(why, device->error, "%s: %s%s", device->path, strerror(-device->error),
                      device->error == -EACCES ? " (its group, mostly render, may open it)" : "");
}

static int find_wanted(const struct device *devices, size_t n_devices, const char *wanted,
                       struct reason *why)
{
    for (size_t i = 0; i < n_devices; i++) {
        if (!strcmp(devices[i].path, wanted)) {
            reason_set(why, 0, "it was asked for");
            return devices[i].error ? refuse(&devices[i], why) : (int)i;
        }
    }
    return reason_set(why, -ENODEV, "%s is not a render node of the driver amdgpu%s%s", wanted,
                      n_devices ? "; there is " : "", n_devices ? devices[0].path : "");
}

int device_choose(const struct device *devices, size_t n_devices, const char *wanted,
                  struct reason *why)
{
    if (wanted) {
        return find_wanted(devices, n_devices, wanted, why);
    }
    int best = -1, unusable = -1, n_usable = 0;
    for (size_t i = 0; i < n_devices; i++) {
        if (devices[i].error) {
            unusable = unusable < 0 ? (int)i : unusable;
            continue;
        }
        n_usable++;
        if (best < 0 || (devices[i].is_apu && !devices[best].is_apu)) {
            best = (int)i;
        }
    }
    if (best < 0) {
        return unusable < 0 ? reason_set(why, -ENODEV, "there is no GPU with the driver amdgpu")
                            : refuse(&devices[unusable], why);
    }
    if (n_usable == 1) {
        reason_set(why, 0, unusable < 0 ? "it is the only one" : "it is the only one we may open");
    } else {
        reason_set(why, 0, "of %d it is the first%s", n_usable,
                   devices[best].is_apu ? " APU" : "; none is an APU");
    }
    return best;
}
