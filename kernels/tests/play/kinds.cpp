// What the entries of the emulation take, for the library that plays the driver.
#include "machine.h"

extern "C" const char* play_kinds(const char* name) {
    for (size_t i = 0; i < emu::n_entries; i++)
        if (strcmp(emu::entries[i].name, name) == 0) return emu::entries[i].kinds;
    return nullptr;
}
