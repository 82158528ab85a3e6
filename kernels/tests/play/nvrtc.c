// A library that plays NVRTC: every source compiles to a text that says what it was (the playing driver takes that), or
// with `-DBROKEN` to an error.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MAJOR
#define MAJOR 13
#endif

// The only one that is compiled for.
#ifndef ARCHITECTURE
#define ARCHITECTURE "sm_90a"
#endif

struct Program { char cubin[200], log[300]; };

const char* nvrtcGetErrorString(int code) { return code == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcVersion(int* major, int* minor) { return *major = MAJOR, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int* n) { return *n = 3, 0; }
int nvrtcGetSupportedArchs(int* archs) { return archs[0] = 80, archs[1] = 90, archs[2] = 100, 0; }
int nvrtcCreateProgram(void** p, const char* text, const char* name, int n, const char* const* headers, const char* const* names) {
    // What the text includes must be among the headers.
    int included = 0;
    for (const char* at = text; (at = strstr(at, "#include \"")); included++) {
        at += strlen("#include \"");
        int there = 0;
        for (int i = 0; i < n; i++)
            there |= headers[i] && !strncmp(at, names[i], strlen(names[i])) && at[strlen(names[i])] == '"';
        if (!there) return 1;
    }
    if (!included) return 1;
    struct Program* program = calloc(1, sizeof *program);
    snprintf(program->cubin, sizeof program->cubin, "cubin of %s", name);
#ifdef BROKEN
    snprintf(program->log, sizeof program->log, "%s(7): error: identifier \"__dp4a\" is undefined\n\n1 error detected in the compilation of \"%s\".", name, name);
#endif
    return *p = program, 0;
}
int nvrtcDestroyProgram(void** p) { return free(*p), *p = 0, 0; }
int nvrtcCompileProgram(void* p, int n, const char* const* options) {
    int for_card = 0, exact = 0;
    for (int i = 0; i < n; i++) {
        for_card |= !strcmp(options[i], "--gpu-architecture=" ARCHITECTURE);
        exact |= !strcmp(options[i], "--fmad=false");
    }
    return !for_card || !exact ? 5 : ((struct Program*)p)->log[0] ? 6 : 0;
}
int nvrtcGetProgramLogSize(void* p, size_t* n) { return *n = strlen(((struct Program*)p)->log) + 1, 0; }
int nvrtcGetProgramLog(void* p, char* to) { return strcpy(to, ((struct Program*)p)->log), 0; }
int nvrtcGetCUBINSize(void* p, size_t* n) { return *n = strlen(((struct Program*)p)->cubin) + 1, 0; }
int nvrtcGetCUBIN(void* p, char* to) { return strcpy(to, ((struct Program*)p)->cubin), 0; }
