# Included by llama-cpp-python's CMake project (CMAKE_PROJECT_llama_cpp_INCLUDE): its build forces llama.cpp's "common"
# library on, which only the server and the tools use. A normal variable goes before the cached one, so this drops it.
set(LLAMA_BUILD_COMMON OFF)
