/* mac: the codes against published vectors, and what a set of keys takes and finds. */
#include "mac.h"

#include <errno.h>
#include <string.h>

#include "check.h"

static const struct acl_address somebody = {0, 0xffffc0000205};

static void bytes(const char *hex, uint8_t *out)
{
    for (unsigned byte; sscanf(hex, " %2x", &byte) == 1; hex += 2) {
        hex += strspn(hex, " ");
        *out++ = (uint8_t)byte;
    }
}

/* A set of one key. */
static struct mac_keys *one(int type, const uint8_t *secret, size_t length)
{
    struct mac_keys *keys;
    CHECK_EQUAL(mac_create(1, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1, type, secret, length, NULL, 0}), 0);
    return keys;
}

/* That key's code over data is `hex`, for a packet of version 3, where nothing is cut. */
static void check_code(int type, const char *secret, size_t secret_length, const char *data, size_t length, const char *hex)
{
    uint8_t expected[MAC_CODE_MAX], code[MAC_CODE_MAX + 1] = {0};
    struct mac_keys *keys = one(type, (const uint8_t *)secret, secret_length);
    const struct mac_key *key = mac_find(keys, 1);
    bytes(hex, expected);
    size_t size = mac_length(key, 3);
    code[size] = 0xaa;
    mac_make(key, (const uint8_t *)data, length, code, size);
    CHECK(memcmp(code, expected, size) == 0 && code[size] == 0xaa);
    CHECK(mac_check(key, 3, (const uint8_t *)data, length, expected, size));
    for (size_t i = 0; i < size; i++) { /* each byte counts */
        code[i] ^= 1;
        CHECK(!mac_check(key, 3, (const uint8_t *)data, length, code, size));
        code[i] ^= 1;
    }
    if (length)
        CHECK(!mac_check(key, 3, (const uint8_t *)data, length - 1, expected, size));
    mac_destroy(keys);
}

static const char *const message = "6bc1bee2 2e409f96 e93d7e11 7393172a ae2d8a57 1e03ac9c 9eb76fac 45af8e51"
                                   "30c81c46 a35ce411 e5fbc119 1a0a52ef f69f2445 df4f9b17 ad2b417b e66c3710";

static void aes128_cmac_is_as_in_rfc_4493_4(void)
{
    char secret[16], data[64];
    bytes("2b7e1516 28aed2a6 abf71588 09cf4f3c", (uint8_t *)secret);
    bytes(message, (uint8_t *)data);
    check_code(MAC_AES128, secret, 16, data, 0, "bb1d6929 e9593728 7fa37d12 9b756746");
    check_code(MAC_AES128, secret, 16, data, 16, "070a16b4 6b4d4144 f79bdd9d d04a287c");
    check_code(MAC_AES128, secret, 16, data, 40, "dfa66747 de9ae630 30ca3261 1497c827");
    check_code(MAC_AES128, secret, 16, data, 64, "51f0bebf 7e3b9d92 fc497417 79363cfe");
}

static void aes256_cmac_is_as_in_sp_800_38b_d3(void)
{
    char secret[32], data[64];
    bytes("603deb10 15ca71be 2b73aef0 857d7781 1f352c07 3b6108d7 2d9810a3 0914dff4", (uint8_t *)secret);
    bytes(message, (uint8_t *)data);
    check_code(MAC_AES256, secret, 32, data, 0, "028962f6 1b7bf89e fc6b551f 4667d983");
    check_code(MAC_AES256, secret, 32, data, 16, "28a7023f 452e8f82 bd4bf28d 8c37c35c");
    check_code(MAC_AES256, secret, 32, data, 40, "aaf3d8f1 de5640c2 32f5b169 b9c911e6");
    check_code(MAC_AES256, secret, 32, data, 64, "e1992190 549f6ed5 696a2c05 6c315410");
}

/* The vectors of RFC 1321 A.5 and FIPS 180, cut into key and data anywhere. */
static void a_digest_is_of_the_key_and_then_the_data(void)
{
    const char *const abc = "abc", *const longer = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    const char *const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (size_t cut = 1; cut <= 3; cut++) {
        check_code(MAC_MD5, abc, cut, abc + cut, 3 - cut, "90015098 3cd24fb0 d6963f7d 28e17f72");
        check_code(MAC_SHA1, abc, cut, abc + cut, 3 - cut, "a9993e36 4706816a ba3e2571 7850c26c 9cd0d89d");
        check_code(MAC_SHA256, abc, cut, abc + cut, 3 - cut, "ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad");
    }
    for (size_t cut = 1; cut <= 56; cut += 5) {
        check_code(MAC_MD5, letters, cut, letters + cut, 62 - cut, "d174ab98 d277d9f5 a5611c2c 9f419d9f");
        check_code(MAC_SHA1, longer, cut, longer + cut, 56 - cut, "84983e44 1c3bd26e baae4aa1 f95129e5 e54670f1");
        check_code(MAC_SHA256, longer, cut, longer + cut, 56 - cut,
                   "248d6a61 d20638b8 e5c02693 0c3e6039 a33ce459 64ff2167 f6ecedd4 19db06c1");
    }
}

static void codes_are_cut_to_20_bytes_in_version_four_only(void)
{
    static const size_t whole[MAC_TYPES] = {16, 20, 32, 16, 16}, cut[MAC_TYPES] = {16, 20, 20, 16, 16};
    const uint8_t secret[32] = {1, 2, 3}, data[48] = {4};
    for (int type = 0; type < MAC_TYPES; type++) {
        uint8_t long_code[MAC_CODE_MAX], code[MAC_CODE_MAX];
        struct mac_keys *keys = one(type, secret, type == MAC_AES128 ? 16 : 32);
        const struct mac_key *key = mac_find(keys, 1);
        for (unsigned version = 1; version <= 4; version++) {
            size_t right = version < 4 ? whole[type] : cut[type];
            CHECK_EQUAL(mac_length(key, version), right);
            mac_make(key, data, sizeof data, long_code, whole[type]);
            mac_make(key, data, sizeof data, code, right);
            CHECK(memcmp(code, long_code, right) == 0);
            for (size_t length = 0; length <= MAC_CODE_MAX; length++)
                CHECK_EQUAL(mac_check(key, version, data, sizeof data, long_code, length), length == right);
        }
        mac_destroy(keys);
    }
}

static void a_set_takes_ids_in_ascending_order_and_as_many_as_it_has_room_for(void)
{
    const uint8_t secret[32] = {7};
    struct mac_keys *keys;
    CHECK_EQUAL(mac_create(3, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){0, MAC_MD5, secret, 8, NULL, 0}), -EINVAL);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){5, MAC_MD5, secret, 8, NULL, 0}), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){5, MAC_MD5, secret, 8, NULL, 0}), -EINVAL);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){4, MAC_MD5, secret, 8, NULL, 0}), -EINVAL);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){6, MAC_SHA1, secret, 8, NULL, 0}), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){UINT32_MAX, MAC_SHA256, secret, 8, NULL, 0}), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){UINT32_MAX, MAC_SHA256, secret, 8, NULL, 0}), -EINVAL);
    mac_destroy(keys);
    CHECK_EQUAL(mac_create(1, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1, MAC_MD5, secret, 8, NULL, 0}), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){2, MAC_MD5, secret, 8, NULL, 0}), -ENOSPC);
    mac_destroy(keys);
    CHECK_EQUAL(mac_create(0, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1, MAC_MD5, secret, 8, NULL, 0}), -ENOSPC);
    CHECK(!mac_find(keys, 1) && !mac_find(NULL, 1));
    mac_destroy(keys);
    CHECK_EQUAL(mac_create(SIZE_MAX, &keys), -ENOMEM);
    CHECK(!keys);
    mac_destroy(NULL);
}

static void secrets_have_the_length_of_their_cipher(void)
{
    static const uint8_t secret[4097];
    struct mac_keys *keys;
    CHECK_EQUAL(mac_create(100, &keys), 0);
    for (size_t length = 0; length < 64; length++) {
        const struct mac_spec aes128 = {1 + 2 * (uint32_t)length, MAC_AES128, secret, length, NULL, 0};
        const struct mac_spec aes256 = {2 + 2 * (uint32_t)length, MAC_AES256, secret, length, NULL, 0};
        CHECK_EQUAL(mac_add(keys, &aes128), length == 16 ? 0 : -EINVAL);
        CHECK_EQUAL(mac_add(keys, &aes256), length == 32 ? 0 : -EINVAL);
    }
    for (int type = MAC_MD5; type <= MAC_SHA256; type++) {
        uint32_t id = 200 + 10 * (uint32_t)type;
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){id, type, secret, 0, NULL, 0}), -EINVAL);
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){id, type, secret, 1, NULL, 0}), 0);
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){id + 1, type, secret, 4096, NULL, 0}), 0);
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){id + 2, type, secret, 4097, NULL, 0}), -EINVAL);
    }
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){900, -1, secret, 16, NULL, 0}), -EINVAL);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){900, MAC_TYPES, secret, 16, NULL, 0}), -EINVAL);
    mac_destroy(keys);
}

static void a_key_is_found_by_its_id(void)
{
    struct mac_keys *keys;
    enum { COUNT = 101 };
    uint8_t codes[COUNT][16], code[16];
    CHECK_EQUAL(mac_create(COUNT, &keys), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t secret[4] = {(uint8_t)i, 1, 2, 3};
        CHECK_EQUAL(mac_add(keys, &(struct mac_spec){10 + 3 * i, MAC_MD5, secret, sizeof secret, NULL, 0}), 0);
        mac_make(mac_find(keys, 10 + 3 * i), secret, 4, codes[i], 16); /* the last of them each time */
        memset(secret, 0, sizeof secret); /* the set has its own */
    }
    for (uint32_t id = 0; id < 10 + 3 * COUNT + 5; id++) {
        const struct mac_key *key = mac_find(keys, id);
        uint32_t i = (id - 10) / 3;
        CHECK((key != NULL) == (id >= 10 && (id - 10) % 3 == 0 && i < COUNT));
        if (!key)
            continue;
        const uint8_t data[4] = {(uint8_t)i, 1, 2, 3};
        mac_make(key, data, 4, code, 16);
        CHECK(memcmp(code, codes[i], 16) == 0);
    }
    mac_destroy(keys);
}

static void a_key_may_be_bound_to_where_it_is_used(void)
{
    const uint8_t secret[16] = {1};
    struct acl_range from[] = {{{0, 0}, ACL_DENY}, {{0, 0xffffc0000200}, ACL_ALLOW}, {{0, 0xffffc0000300}, ACL_DENY},
                               {{0x20010db800000000, 0}, ACL_AUTHENTICATED}, {{0x20010db900000000, 0}, ACL_IGNORE}};
    struct mac_keys *keys;
    CHECK_EQUAL(mac_create(2, &keys), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1, MAC_SHA1, secret, 16, from + 1, 2}), -EINVAL); /* ranges begin at :: */
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){1, MAC_SHA1, secret, 16, from, 5}), 0);
    CHECK_EQUAL(mac_add(keys, &(struct mac_spec){2, MAC_SHA1, secret, 16, NULL, 0}), 0);
    memset(from, 0, sizeof from); /* copied */
    CHECK(mac_from(mac_find(keys, 1), somebody));
    CHECK(!mac_from(mac_find(keys, 1), (struct acl_address){0, 0xffffc0000300}));
    CHECK(!mac_from(mac_find(keys, 1), (struct acl_address){0x20010db800000000, 1})); /* only what is allowed outright */
    CHECK(!mac_from(mac_find(keys, 1), (struct acl_address){UINT64_MAX, UINT64_MAX}));
    CHECK(mac_from(mac_find(keys, 2), somebody));
    CHECK(mac_from(mac_find(keys, 2), (struct acl_address){UINT64_MAX, UINT64_MAX}));
    mac_destroy(keys);
}

int main(void)
{
    RUN(aes128_cmac_is_as_in_rfc_4493_4);
    RUN(aes256_cmac_is_as_in_sp_800_38b_d3);
    RUN(a_digest_is_of_the_key_and_then_the_data);
    RUN(codes_are_cut_to_20_bytes_in_version_four_only);
    RUN(a_set_takes_ids_in_ascending_order_and_as_many_as_it_has_room_for);
    RUN(secrets_have_the_length_of_their_cipher);
    RUN(a_key_is_found_by_its_id);
    RUN(a_key_may_be_bound_to_where_it_is_used);
    return 0;
}
