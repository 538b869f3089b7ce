#include "mac.h"

#include <errno.h>
#include <nettle/cmac.h>
#include <nettle/md5.h>
#include <nettle/memops.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t code_length[MAC_TYPES] = {[MAC_MD5] = MD5_DIGEST_SIZE,
                                               [MAC_SHA1] = SHA1_DIGEST_SIZE,
                                               [MAC_SHA256] = SHA256_DIGEST_SIZE,
                                               [MAC_AES128] = CMAC128_DIGEST_SIZE,
                                               [MAC_AES256] = CMAC128_DIGEST_SIZE};

enum { KEYS_MAX = 1 << 20, SECRET_MAX = 4096 };

struct mac_key {
    uint32_t id;
    int type;
    struct acl_range *from;
    size_t from_count;
    uint8_t *secret;
    size_t secret_length;
    struct cmac128_key cmac; /* the two masks of RFC 4493 2.3 */
    union {
        struct aes128_ctx aes128;
        struct aes256_ctx aes256;
    } cipher; /* round keys */
};

struct mac_keys {
    size_t room, count;
    struct mac_key key[];
};

/* Zero memory; the compiler may not leave it out. */
static void wipe_memory(void *at, size_t length)
{
    memset(at, 0, length);
    __asm__ volatile("" : : "r"(at) : "memory");
}

int mac_create(size_t room, struct mac_keys **out)
{
    *out = room > KEYS_MAX ? NULL : calloc(1, sizeof **out + room * sizeof(struct mac_key));
    if (!*out)
        return -ENOMEM;
    (*out)->room = room;
    return 0;
}

static void expand_key(struct mac_key *key)
{
    if (key->type == MAC_AES128) {
        aes128_set_encrypt_key(&key->cipher.aes128, key->secret);
        cmac128_set_key(&key->cmac, &key->cipher.aes128, (nettle_cipher_func *)aes128_encrypt);
    } else if (key->type == MAC_AES256) {
        aes256_set_encrypt_key(&key->cipher.aes256, key->secret);
        cmac128_set_key(&key->cmac, &key->cipher.aes256, (nettle_cipher_func *)aes256_encrypt);
    }
}

int mac_add(struct mac_keys *keys, const struct mac_spec *spec)
{
    size_t ranges_size = spec->range_count * sizeof *spec->ranges;
    if (spec->id == 0 || spec->type < 0 || spec->type >= MAC_TYPES || spec->length == 0 || spec->length > SECRET_MAX)
        return -EINVAL;
    if (spec->range_count && !acl_valid(spec->ranges, spec->range_count))
        return -EINVAL;
    if ((spec->type == MAC_AES128 && spec->length != AES128_KEY_SIZE) || (spec->type == MAC_AES256 && spec->length != AES256_KEY_SIZE))
        return -EINVAL;
    if (keys->count && keys->key[keys->count - 1].id >= spec->id)
        return -EINVAL;
    if (keys->count == keys->room)
        return -ENOSPC;
    struct mac_key *key = &keys->key[keys->count];
    key->secret = malloc(spec->length);
    key->from = ranges_size ? malloc(ranges_size) : NULL;
    if (!key->secret || (ranges_size && !key->from)) {
        free(key->secret);
        free(key->from);
        return -ENOMEM;
    }
    memcpy(key->secret, spec->secret, spec->length);
    if (ranges_size)
        memcpy(key->from, spec->ranges, ranges_size);
    key->id = spec->id;
    key->type = spec->type;
    key->secret_length = spec->length;
    key->from_count = spec->range_count;
    expand_key(key);
    keys->count++;
    return 0;
}

void mac_destroy(struct mac_keys *keys)
{
    if (!keys)
        return;
    for (size_t i = 0; i < keys->count; i++) {
        wipe_memory(keys->key[i].secret, keys->key[i].secret_length);
        free(keys->key[i].secret);
        free(keys->key[i].from);
    }
    wipe_memory(keys->key, keys->count * sizeof keys->key[0]);
    free(keys);
}

const struct mac_key *mac_find(const struct mac_keys *keys, uint32_t id)
{
    size_t low = 0, high = keys ? keys->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (keys->key[middle].id == id)
            return &keys->key[middle];
        if (keys->key[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int mac_from(const struct mac_key *key, struct acl_address source)
{
    return key->from_count == 0 || acl_find(key->from, key->from_count, source) == ACL_ALLOW;
}

size_t mac_length(const struct mac_key *key, unsigned version)
{
    size_t length = code_length[key->type];
    return version >= 4 && length > MAC_CODE_V4_MAX ? MAC_CODE_V4_MAX : length;
}

void mac_make(const struct mac_key *key, const uint8_t *data, size_t data_length, uint8_t *code, size_t length)
{
    union {
        struct md5_ctx md5;
        struct sha1_ctx sha1;
        struct sha256_ctx sha256;
        struct cmac128_ctx cmac;
    } state;
    switch (key->type) {
    case MAC_MD5:
        md5_init(&state.md5);
        md5_update(&state.md5, key->secret_length, key->secret);
        md5_update(&state.md5, data_length, data);
        md5_digest(&state.md5, length, code);
        break;
    case MAC_SHA1:
        sha1_init(&state.sha1);
        sha1_update(&state.sha1, key->secret_length, key->secret);
        sha1_update(&state.sha1, data_length, data);
        sha1_digest(&state.sha1, length, code);
        break;
    case MAC_SHA256:
        sha256_init(&state.sha256);
        sha256_update(&state.sha256, key->secret_length, key->secret);
        sha256_update(&state.sha256, data_length, data);
        sha256_digest(&state.sha256, length, code);
        break;
    case MAC_AES128:
        cmac128_init(&state.cmac);
        cmac128_update(&state.cmac, &key->cipher.aes128, (nettle_cipher_func *)aes128_encrypt, data_length, data);
        cmac128_digest(&state.cmac, &key->cmac, &key->cipher.aes128, (nettle_cipher_func *)aes128_encrypt, (unsigned)length, code);
        break;
    default:
        cmac128_init(&state.cmac);
        cmac128_update(&state.cmac, &key->cipher.aes256, (nettle_cipher_func *)aes256_encrypt, data_length, data);
        cmac128_digest(&state.cmac, &key->cmac, &key->cipher.aes256, (nettle_cipher_func *)aes256_encrypt, (unsigned)length, code);
    }
}

int mac_check(const struct mac_key *key, unsigned version, const uint8_t *data, size_t data_length, const uint8_t *code, size_t length)
{
    uint8_t right[MAC_CODE_MAX];
    if (length != mac_length(key, version))
        return 0;
    mac_make(key, data, data_length, right, length);
    return memeql_sec(right, code, length);
}
