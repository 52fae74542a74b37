# The Vulkan backend: lavapipe everywhere, a GPU where there is one.
gttd_test(vkc_test SOURCES engine/vkc_test.c LIBS vk random_model m vulkan_headers LABELS engine)
gttd_test(conformance_vulkan SOURCES engine/conformance_vulkan.c LIBS conformance vk TIMEOUT 600
          LABELS engine)
