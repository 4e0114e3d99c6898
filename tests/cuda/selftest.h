// selftest.h - what the self-tests of the shim and of the stand-in for a GPU share

#pragma once

#include <stdio.h>
#include <unistd.h>

#include <functional>
#include <string>

static int n_failed = 0;

static void expect(bool ok, const char * what) {
    printf("%s  %s\n", ok ? "ok    " : "FAILED", what);
    n_failed += !ok;
}

// what is said on stderr while f runs
static std::string messages(const std::function<void()> & f) {
    fflush(stderr);
    FILE    * file = tmpfile();
    const int old  = dup(2);
    dup2(fileno(file), 2);
    f();
    fflush(stderr);
    dup2(old, 2);
    close(old);
    std::string text((size_t) lseek(fileno(file), 0, SEEK_END), 0);
    rewind(file);
    text.resize(fread(&text[0], 1, text.size(), file));
    fclose(file);
    return text;
}
