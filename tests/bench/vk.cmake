add_executable(vk_bench ${CMAKE_CURRENT_LIST_DIR}/vk_bench.c)
target_link_libraries(vk_bench PRIVATE check vk random_model)
