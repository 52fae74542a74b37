# The Vulkan backend: lavapipe everywhere, a GPU where there is one. What differs where there are cooperative
# matrices has the label "matrices".
add_library(vk_opened STATIC ${CMAKE_CURRENT_LIST_DIR}/vk_opened.c)
target_include_directories(vk_opened PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(vk_opened PUBLIC vk check m)
gttd_test(vkc_test SOURCES engine/vkc_test.c engine/keep_drivers.c
          LIBS vk_opened random_model m vulkan_headers LABELS engine)
gttd_test(vk_tune_test SOURCES engine/vk_tune_test.c engine/keep_drivers.c
          LIBS vk_opened random_model m vulkan_headers TIMEOUT 600 LABELS engine matrices)
gttd_test(vk_few_test SOURCES engine/vk_few_test.c engine/keep_drivers.c
          LIBS vk_opened random_model m vulkan_headers TIMEOUT 900 LABELS engine)
set(vulkan_quick "")
if(GTTD_QUICK_TESTS OR CMAKE_C_FLAGS MATCHES "-fsanitize")
    set(vulkan_quick --quick) # the whole suite takes minutes then
endif()
gttd_test(vk_gemm_few_test SOURCES engine/vk_gemm_few_test.c engine/keep_drivers.c
          LIBS vk_opened cpu_backends random_model m vulkan_headers ARGS ${vulkan_quick} TIMEOUT 400 LABELS engine matrices)
gttd_test(vk_layers_test SOURCES engine/vk_layers_test.c engine/keep_drivers.c
          LIBS vk_opened random_model m vulkan_headers ARGS ${vulkan_quick} TIMEOUT 600 LABELS engine)
gttd_test(conformance_vulkan SOURCES engine/conformance_vulkan.c engine/keep_drivers.c
          LIBS conformance vk random_model m ARGS ${vulkan_quick} TIMEOUT 1200
          LABELS engine matrices)
gttd_test(vk_sample_test SOURCES engine/vk_sample_test.c engine/keep_drivers.c
          LIBS llm vk_opened m vulkan_headers ARGS ${vulkan_quick} TIMEOUT 300 LABELS engine)
gttd_test(vk_steps_test SOURCES engine/vk_steps_test.c engine/keep_drivers.c
          LIBS vk_opened random_model m vulkan_headers TIMEOUT 300 LABELS engine)
gttd_test(ahead_test SOURCES engine/ahead_test.c engine/keep_drivers.c LIBS llm TIMEOUT 600
          LABELS engine)
gttd_test(vk_failures_test SOURCES engine/vk_failures_test.c engine/keep_drivers.c
          LIBS llm vk_opened cpu_backends random_model m vulkan_headers TIMEOUT 600 LABELS engine matrices)
add_test(NAME failures_cpu COMMAND vk_failures_test cpu)
set_tests_properties(failures_cpu PROPERTIES LABELS engine)
target_link_options(vk_failures_test PRIVATE -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc)
set(vulkan_test_environment
    "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp:print_suppressions=0")
set_tests_properties(vkc_test vk_tune_test vk_few_test vk_gemm_few_test vk_layers_test
    vk_sample_test vk_steps_test vk_failures_test ahead_test conformance_vulkan PROPERTIES ENVIRONMENT
    "${vulkan_test_environment}")

# Again, with every address that a shader uses checked by the validation layer (several times
# slower).
add_test(NAME conformance_vulkan_addresses COMMAND conformance_vulkan --quick --no-sequences)
add_test(NAME vk_steps_addresses COMMAND vk_steps_test)
set_tests_properties(conformance_vulkan_addresses vk_steps_addresses PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600
    LABELS engine ENVIRONMENT
    "VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT;${vulkan_test_environment}")
