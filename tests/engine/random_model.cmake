# Linked by tests that need a model without files.
add_library(random_model STATIC ${CMAKE_CURRENT_LIST_DIR}/random_model.c)
target_include_directories(random_model PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(random_model PUBLIC model check)
