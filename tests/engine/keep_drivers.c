/* SPDX-License-Identifier: MIT */
/*
 * Linked into tests that load Vulkan drivers: libraries stay mapped until the program ends, so that
 * LeakSanitizer can say whose memory a leak is and lsan.supp can name the drivers' own.
 */
int dlclose(void *handle);

__attribute__((visibility("default"))) int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
